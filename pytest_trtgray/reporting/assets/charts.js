// The part of Apache ECharts that the report uses; bundled into charts.min.js (see CONTRIBUTING.md).
import * as echarts from "echarts/core";
import { BarChart, CustomChart, GraphChart, HeatmapChart, LineChart, ScatterChart, TreemapChart } from "echarts/charts";
import { AriaComponent, GridComponent, LegendComponent, TooltipComponent, VisualMapContinuousComponent } from "echarts/components";
import { SVGRenderer } from "echarts/renderers";

echarts.use([
  AriaComponent, BarChart, CustomChart, GraphChart, GridComponent, HeatmapChart, LegendComponent, LineChart, SVGRenderer,
  ScatterChart, TooltipComponent, TreemapChart, VisualMapContinuousComponent,
]);
window.echarts = echarts;
