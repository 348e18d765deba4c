"""The same diagnosis from every release's wording: one message each, as TensorRT 7 to 11 and others print it."""

from __future__ import annotations

import io

import pytest

from pytest_trtgray.logs.diagnosis import diagnose
from pytest_trtgray.logs.log import read

# In the order of the releases. Names, numbers and paths are invented.
WORDINGS: tuple[tuple[str, str], ...] = (
    # loading an engine
    ("RT_VERSION_MISMATCH", "coreReadArchive.cpp (38) - Serialization Error in verifyHeader: 0 (Version tag does not match)"),
    (
        "RT_VERSION_MISMATCH",
        "1: [stdArchiveReader.cpp::StdArchiveReader::40] Error Code 1: Serialization (Serialization assertion stdVersionRead == "
        "serializationVersion failed.Version tag does not match. Note: Current Version: 213, Serialized Engine Version: 205)",
    ),
    (
        "RT_VERSION_MISMATCH",
        "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead == "
        "kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 237, Serialized Engine Version: 239)",
    ),
    (
        "RT_VERSION_MISMATCH",
        "6: The engine plan file is not compatible with this version of TensorRT, expecting library version 8.6.1.6 got 8.5.3.1, please rebuild.",
    ),
    ("RT_NOT_AN_ENGINE", "INVALID_CONFIG: The engine plan file is not compatible with this version of TensorRT, expecting library version 7.0.0 got 0.0.0, please rebuild."),
    (
        "RT_NOT_AN_ENGINE",
        "1: [stdArchiveReader.cpp::StdArchiveReaderInitCommon::46] Error Code 1: Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match)",
    ),
    (
        "RT_NOT_AN_ENGINE",
        "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion header.magicTag == rt::kPLAN_MAGIC_TAG failed.Trying to "
        "load an engine created with incompatible serialization version. Check that the engine was not created using safety runtime.)",
    ),
    (
        "RT_CC_MISMATCH",
        "6: The engine plan file is generated on an incompatible device, expecting compute 8.0 got compute 8.9, please rebuild.",
    ),
    (
        "RT_CC_MISMATCH",
        "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine plan file is generated on an incompatible device, "
        "expecting compute 8.9 got compute 8.6, please rebuild.)",
    ),
    ("RT_ENGINE_TRUNCATED", "engine.cpp:1104: bool nvinfer1::rt::Engine::deserialize(const void*, std::size_t): Assertion `size >= bsize && \"Mismatch between allocated memory size and expected size of serialized engine.\"' failed."),
    (
        "RT_ENGINE_TRUNCATED",
        "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion cursor < blobSize failed. In parsePlan at /_src/runtime/dispatch/runtime.cpp:779)",
    ),
    ("RT_ENGINE_EMPTY", "Engine blob is empty. Nothing to deserialize!"),
    (
        "RT_PLUGIN_MISSING",
        "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion creator failed.Cannot deserialize plugin since "
        "corresponding IPluginCreator not found in Plugin Registry In load at /_src/runtime/core/pluginRunner.cpp:310)",
    ),
    ("RT_PLUGIN_MISSING", "INVALID_ARGUMENT: getPluginCreator could not find plugin BatchedNMS_TRT version 1"),
    # running it
    (
        "RT_SHAPE_OUT_OF_PROFILE",
        "3: [executionContext.cpp::validateInputBindings::1831] Error Code 3: API Usage Error (Parameter check failed at: "
        "executionContext.cpp::validateInputBindings::1831, condition: profileMaxDims.d[i] >= dimensions.d[i]. Supplied binding dimension [10,3,128,64] "
        "for bindings[0] exceed min ~ max range at index 0, maximum dimension in profile is 1, minimum dimension in profile is 1, but supplied dimension is 10.\n)",
    ),
    (
        "RT_SHAPE_OUT_OF_PROFILE",
        "3: [executionContext.cpp::setInputShape::2309] Error Code 3: API Usage Error (Parameter check failed at: "
        "runtime/api/executionContext.cpp::setInputShape::2309, condition: satisfyProfile Runtime dimension does not satisfy any optimization profile.)",
    ),
    (
        "RT_SHAPE_OUT_OF_PROFILE",
        "IExecutionContext::setInputShape: Error Code 3: API Usage Error (Parameter check failed, condition: satisfyProfile. Set dimension [10240] for "
        "tensor input_ids does not satisfy any optimization profiles. Valid range for profile 0: [1]..[8192].)",
    ),
    (
        "RT_STATIC_DIM_MISMATCH",
        "IExecutionContext::setInputShape: Error Code 3: API Usage Error (Parameter check failed, condition: engineDims.d[i] == dims.d[i]. Static "
        "dimension mismatch while setting input shape for images. In setInputShape at /_src/runtime/api/executionContext.cpp:2419)",
    ),
    (
        "RT_NULL_BINDING",
        "IExecutionContext::enqueueV3: Error Code 3: API Usage Error (Parameter check failed, condition: "
        "mContext.profileObliviousBindings.at(profileObliviousIndex) != nullptr. Address is not set for input tensor images. Call setInputTensorAddress "
        "or setTensorAddress before enqueueV3/executeV3.)",
    ),
    (
        "RT_NULL_BINDING",
        "IExecutionContext::enqueueV3: Error Code 3: API Usage Error (Parameter check failed, condition: "
        "mContext.profileObliviousBindings.at(profileObliviousIndex) || getPtrOrNull(mOutputAllocators, profileObliviousIndex). Neither address or allocator "
        "is set for output tensor output0. Call setOutputTensorAddress, setTensorAddress or setOutputAllocator before enqueue/execute.)",
    ),
    ("RT_CUDA_STICKY_ERROR", "1: [cudaResources.cpp::~ScopedCudaEvent::24] Error Code 1: Cuda Runtime (an illegal memory access was encountered)"),
    ("RT_CUDA_STICKY_ERROR", "../rtSafe/cuda/cudaConvolutionRunner.cpp (483) - Cuda Error in executeConv: 700 (an illegal memory access was encountered)"),
    ("RT_CUDA_STICKY_ERROR", "IExecutionContext::executeV2: Error Code 1: Cuda Runtime (unspecified launch failure)"),
    ("RT_CUDA_STICKY_ERROR", "1: [caskUtils.cpp::createCaskHardwareInfo::844] Error Code 1: Cask (checkCaskExecError failed)"),
    # the machine
    ("ENV_NO_CUDA_DRIVER", "CUDA initialization failure with error 35. Please check your CUDA installation:  http://docs.nvidia.com/cuda/"),
    ("ENV_NO_CUDA_DRIVER", "Cuda initialization failure with error 100. Please check cuda installation:  http://docs.nvidia.com/cuda/"),
    ("ENV_NO_CUDA_DRIVER", "[runtime.cpp::isCudaInstalledCorrectly::41] Error Code 6: Internal Error (CUDA initialization failure with error 222. Please check your CUDA installation)"),
    ("ENV_NO_CUDA_DRIVER", "IRuntime::deserializeCudaEngine: Error Code 1: Cuda Runtime (In ScopedCudaStream at /_src/common/dispatch/cudaResources.cpp:25)"),
    ("BUILD_OUT_OF_MEMORY", "[runtime.cpp::isCudaInstalledCorrectly::41] Error Code 6: Internal Error (CUDA initialization failure with error 2. Please check your CUDA installation)"),
    ("ENV_LIB_MISMATCH", "TensorRT was linked against cuBLAS/cuBLAS LT 11.6.5 but loaded cuBLAS/cuBLAS LT 11.4.2"),
    # the parser
    ("PARSE_MODEL_UNREADABLE", "Failed to parse ONNX model from file: /models/net.onnx"),
    ("PARSE_MODEL_UNREADABLE", "ModelImporter.cpp:688: Failed to parse ONNX model from file: /models/net.onnx"),
    ("PARSE_OLD_OPSET", "onnx2trt_utils.cpp:220: TensorRT supports ONNX graphs generated with at least opset 7. Models using older opsets are not guaranteed to work."),
    ("PARSE_EXTERNAL_WEIGHTS_MISSING", "onnx2trt_utils.cpp:1511: Failed to open file: /models/net.weights"),
    ("PARSE_EXTERNAL_WEIGHTS_TRUNCATED", "WeightsContext.cpp:193: Failed to read from file: /models/net.weights"),
    ("PARSE_EXTERNAL_WEIGHTS_TRUNCATED", "WeightsContext.cpp:320: Unexpected size for the external weights! Expected size: 16384 bytes (shape = 64, 64). Actual size: 1000 bytes."),
    ("QUANT_UNSUPPORTED_DTYPE", "WeightsContext.cpp:203: ONNX initializer zp_4 cannot be imported into TensorRT!"),
    ("PARSE_UNSUPPORTED_DTYPE", "onnx2trt_utils.cpp:1105: Found unsupported datatype (16) when importing initializer: w3"),
    # shapes
    ("SHAPE_RESHAPE_VOLUME", "(Unnamed Layer* 7) [Shuffle]: reshape changes volume. Reshaping [25063500] to [1,500]."),
    ("SHAPE_RESHAPE_VOLUME", "9: [graphShapeAnalyzer.cpp::throwIfError::1306] Error Code 9: Internal Error (Reshape_878: reshape changes volume\n)"),
    (
        "SHAPE_RESHAPE_VOLUME",
        "7: [shapeMachine.cpp::executeContinuation::864] Error Code 7: Internal Error (IShuffleLayer (Unnamed Layer* 190) [Shuffle]: reshaping failed "
        "for tensor: input_38 reshape would change volume 97200 to 98100 Instruction: RESHAPE{3240 1 30} {545 180}.)",
    ),
    ("SHAPE_BROADCAST", "(Unnamed Layer* 12) [ElementWise]: elementwise inputs must have same dimensions or follow broadcast rules (input dimensions were [1,2] and [1,3])"),
    ("SHAPE_CONV_CHANNELS", "4: [convolutionNode.cpp::computeOutputExtents::58] Error Code 4: Internal Error (Conv_1840: number of kernel weights does not match tensor dimensions)"),
    ("SHAPE_CONV_CHANNELS", "(Unnamed Layer* 2) [Convolution]: kernel weights has count 864 but 1152 was expected"),
    ("TYPE_MISMATCH", "4: [layers.cpp::validate::2292] Error Code 4: Internal Error ((Unnamed Layer* 728) [ElementWise]: operation PROD has incompatible input types Float and Bool)"),
    ("TYPE_MISMATCH", "ITensor::getDimensions: Error Code 4: API Usage Error (/m/Where: ISelectLayer must have `thenInput` and `elseInput` of same types but has Float and Half. In validateTypes at /_src/a.cpp:27)"),
    ("TYPE_MISMATCH", "ITensor::getDimensions: Error Code 4: API Usage Error (/m/Concat: IConcatenationLayer `inputs` must all be of the same type. inputs[1] is of type Half but inputs[0] is of type Float.)"),
    # the build
    ("BUILD_NO_PROFILE", "Network has dynamic or shape inputs, but no optimization profile has been defined."),
    ("BUILD_NO_PROFILE", "4: [network.cpp::validate::3062] Error Code 4: Internal Error (Network has dynamic or shape inputs, but no optimization profile has been defined.)"),
    ("BUILD_NO_OUTPUT", "4: [network.cpp::validate::2411] Error Code 4: Internal Error (Network must have at least one output)"),
    ("BUILD_PROFILE_INVALID", "4: Specified optimization profiles must satisfy MIN<=OPT<=MAX."),
    ("BUILD_PROFILE_MISSING_INPUT", "4: [network.cpp::validate::3070] Error Code 4: Internal Error (mask: dynamic input is missing dimensions in profile 0.)"),
    ("BUILD_PROFILE_MISSING_INPUT", "4: [network.cpp::validate::3584] Error Code 4: Internal Error (kv_slice: optimization profile is missing values for shape input)"),
    (
        "BUILD_PROFILE_DIM_MISMATCH",
        "4: [network.cpp::validate::3084] Error Code 4: Internal Error (images: for dimension number 1 in profile 0 does not match network definition "
        "(got min=4, opt=4, max=4), expected min=opt=max=3).)",
    ),
    ("BUILD_PROFILE_INCONSISTENT", "4: [shapeCompiler.cpp::evaluateShapeChecks::911] Error Code 4: Internal Error (kOPT values for profile 0 violate shape constraints: reshape would change volume. IShuffleLayer Reshape_4296)"),
    ("BUILD_PROFILE_INCONSISTENT", "4: [shapeCompiler.cpp::evaluateShapeChecks::822] Error Code 4: Internal Error (kOPT values for profile 0 violate shape constraints: condition '==' violated. Concat_351: dimensions not compatible for concatenation)"),
    ("BUILD_NO_IMPLEMENTATION", "../builder/tacticOptimizer.cpp (1715) - TRTInternal Error in computeCosts: 0 (Could not find any implementation for node Conv_12.)"),
    ("BUILD_NO_IMPLEMENTATION", "Internal error: could not find any implementation for node (Unnamed Layer* 3) [Fully Connected], try increasing the workspace size with IBuilder::setMaxWorkspaceSize()"),
    ("BUILD_NO_IMPLEMENTATION", "10: [optimizer.cpp::computeCosts::3626] Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[a...b]}.)"),
    ("BUILD_NO_IMPLEMENTATION", "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[a...b]}. In computeCosts at /_src/optimizer/optimizer.cpp:4265)"),
    ("BUILD_OUT_OF_MEMORY", "2: [virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no further information)"),
    ("BUILD_OUT_OF_MEMORY", "IBuilder::buildSerializedNetwork: Error Code 2: OutOfMemory (Requested size was 8589934592 bytes.)"),
    ("BUILD_OUT_OF_MEMORY", "1: [defaultAllocator.cpp::allocate::20] Error Code 1: Cuda Runtime (out of memory)"),
    ("BUILD_MYELIN_ERROR", "1: [myelinGraph.h::createMyelinGraph::54] Error Code 1: Myelin (No Myelin Error exists)"),
    ("BUILD_MYELIN_ERROR", "2: [myelinBuilderUtils.cpp::operator()::364] Error Code 2: Internal Error ([HostToDeviceCopy] MyelinCheckException: graph_fusion.cpp:98: CHECK(x) failed.)"),
    ("BUILD_WORKSPACE_TOO_SMALL", "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([tactic.cpp:1676: enumerate_tactics] Tactic Selection: no tactics to implement the operation within workspace limit. Consider increase the allowed workspace size if applicable.)"),
    ("BUILD_HW_DTYPE_UNSUPPORTED", "IBuilder::buildSerializedNetwork: Error Code 9: API Usage Error (Networks with FP8 Q/DQ layers require hardware with FP8 support. In validateGraph at /_src/a.cpp:1)"),
    ("BUILD_HW_OP_UNSUPPORTED", "IBuilder::buildSerializedNetwork: Error Code 9: Internal Error (Target GPU SM 61 is not supported by this TensorRT release.)"),
    ("BUILD_CANCELED", "IBuilder::buildSerializedNetwork: Error Code 7: BuildCanceled (Build canceled by user)"),
    ("LIMIT_TOPK", "4: [topKLayer.cpp::processCheck::80] Error Code 4: Internal Error (TopK_12: K exceeds the maximum value allowed (3840).)"),
    ("API_WEAK_TYPING_FLAG", "IBuilder::buildSerializedNetwork: Error Code 3: API Usage Error (Parameter check failed, condition: !config.getFlag(BuilderFlag::kINT8) )"),
    ("API_BAD_ARGUMENT", "3: [builderConfig.cpp::setMaxAuxStreams::400] Error Code 3: API Usage Error (Parameter check failed at: optimizer/api/builderConfig.cpp::setMaxAuxStreams::400, condition: nbStreams >= 0 )"),
    ("DLA_FAILURE", "2: [nvdlaUtils.cpp::submit::198] Error Code 1: DLA (Failure to submit program to DLA engine.)"),
    ("DLA_FALLBACK", "Default DLA is enabled but layer (Unnamed Layer* 3) [Shuffle] is not supported on DLA, falling back to GPU."),
    # quantisation
    ("QUANT_INT32_BIAS_DQ", "Error[3]: 476_DequantizeLinear: only activation types allowed as input to this layer."),
    ("QUANT_INT32_BIAS_DQ", "ITensor::getDimensions: Error Code 4: API Usage Error (fc1.bias_DequantizeLinear: input has type Int32 but must have type FP8, FP4, Int4, or Int8. In checkType at /_src/a.cpp:456)"),
    ("QUANT_NO_SCALES", "Calibration failure occurred with no scaling factors detected. This could be due to no int8 calibrator or insufficient custom scales for network layers."),
    ("QUANT_BAD_RANGE", "2: [quantization.cpp::DynamicRange::70] Error Code 2: Internal Error (Assertion min_ <= max_ failed. )"),
    ("QUANT_BAD_SCALE", "Error[2]: [weightConvertors.cpp::quantizeBiasCommon::337] Error Code 2: Internal Error (Assertion getter(i) != 0 failed. )"),
    ("QUANT_MISSING_SCALE_FALLBACK", "Missing dynamic range for tensor (Unnamed Layer* 5) [Shuffle]_output, expect fall back to non-int8 implementation for any layer consuming or producing given tensor"),
    # precision
    ("PREC_FP16_OVERFLOW", "Detected layernorm nodes in FP16: LayerNormalization_12, LayerNormalization_30"),
    ("PREC_FP16_SUBNORMAL", "Weights [name=Conv_3.weight] had the following issues when converted to FP16:"),
    ("PREC_CLAMPED_WEIGHTS", "onnx2trt_utils.cpp:400: One or more weights outside the range of FLOAT was clamped"),
    ("OK_WARN_INT64_WEIGHTS", "onnx2trt_utils.cpp:219: Your ONNX model has been generated with INT64 weights, while TensorRT does not natively support INT64. Attempting to cast down to INT32."),
    ("OK_WARN_INT64_IO", "ModelImporter.cpp:459: Make sure output tokens has Int64 binding."),
    # memory and speed
    ("PERF_TACTIC_SKIPPED_MEMORY", "Skipping tactic 3 due to insuficient memory on requested size of 449 detected for tactic 4."),
    ("PERF_TACTIC_SKIPPED_MEMORY", "UNSUPPORTED_STATESkipping tactic 4 due to insufficient memory on requested size of 66048 detected for tactic 0x000000000000001f."),
    ("PERF_TACTIC_SKIPPED_MEMORY", "Requested amount of GPU memory (17179869184 bytes) could not be allocated. There may not be enough free memory for allocation to succeed."),
    ("PERF_CROSS_DEVICE_PLAN", "Using an engine plan file across different models of devices is not recommended and is likely to affect performance or even cause errors."),
    ("PERF_ENQUEUE_BOUND", "* Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be under-utilized."),
    ("PERF_UNSTABLE", "* GPU compute time is unstable, with coefficient of variance = 7.3%."),
)

WARNINGS = ("PREC_", "OK_", "PERF_", "QUANT_MISSING", "ENV_LIB", "DLA_FALLBACK", "PARSE_OLD")

# How each producer wraps TensorRT's message: for errors, for warnings.
PREFIXES = {
    "trt.Logger": ("[11/21/2026-07:33:23] [TRT] [E] ", "[11/21/2026-07:33:23] [TRT] [W] "),
    "trt.Logger 7": ("[TensorRT] ERROR: ", "[TensorRT] WARNING: "),
    "trtexec": ("[11/21/2026-07:33:23] [E] [TRT] ", "[11/21/2026-07:33:23] [W] [TRT] "),
    "polygraphy": ("[E] ", "[W] "),
    "onnxruntime": (
        "2023-02-02 10:00:01.000000000 [E:onnxruntime:Default, tensorrt_execution_provider.h:73 log] [2023-02-02 09:00:01   ERROR] ",
        "2023-02-02 10:00:01.000000000 [W:onnxruntime:Default, tensorrt_execution_provider.h:75 log] [2023-02-02 09:00:01 WARNING] ",
    ),
    "triton": ("E0202 10:00:01.100000 1 logging.cc:43] ", "W0202 10:00:01.100000 1 logging.cc:46] "),
    "deepstream": ("ERROR: [TRT]: ", "WARNING: [TRT]: "),
    "torch_tensorrt": ("ERROR: [Torch-TensorRT] - ", "WARNING: [Torch-TensorRT] - "),
    "tensorrt_llm": ("[TensorRT-LLM][ERROR] ", "[TensorRT-LLM][WARNING] "),
    "jetson": ("[TRT]    ", "[TRT]    "),
}


@pytest.mark.parametrize("producer", PREFIXES)
@pytest.mark.parametrize(("code", "message"), WORDINGS, ids=[f"{code}-{i}" for i, (code, _) in enumerate(WORDINGS)])
def test_a_message_is_known_from_every_release_and_producer(code: str, message: str, producer: str) -> None:
    is_warning = code.startswith(WARNINGS)
    log = read(io.BytesIO((PREFIXES[producer][is_warning] + message + "\n").encode()))
    assert diagnose(log.records, log.events).code == code
