// The part of Apache ECharts that the report uses; bundled into charts.min.js (see CONTRIBUTING.md).
import * as echarts from "echarts/core";
import { BarChart, CustomChart, GraphChart, LineChart, ScatterChart, TreemapChart } from "echarts/charts";
import { AriaComponent, DataZoomComponent, GridComponent, LegendComponent, MarkLineComponent, TooltipComponent } from "echarts/components";
import { CanvasRenderer, SVGRenderer } from "echarts/renderers";

echarts.use([
  AriaComponent, BarChart, CanvasRenderer, CustomChart, DataZoomComponent, GraphChart, GridComponent, LegendComponent,
  LineChart, MarkLineComponent, SVGRenderer, ScatterChart, TooltipComponent, TreemapChart,
]);
window.echarts = echarts;
