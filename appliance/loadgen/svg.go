// svg.go: the picture of a result: latency percentiles and goodput against the rate.
package loadgen

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// The picture's measures, in pixels.
const (
	svgWidth, svgHeight   = 860, 640
	plotLeft, plotRight   = 80, 700
	latTop, latBottom     = 60, 320
	goodTop, goodBottom   = 380, 570
	legendLeft, legendRow = 716, 20
)

// svgHead has colours that can be told apart without seeing red and green, on light and on dark.
const svgHead = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">
<style>
text{font:12px sans-serif;fill:#24292f}.t{font-size:15px;font-weight:600}.bg{fill:#fff}.g{stroke:#d0d7de;stroke-width:1}.f{fill:none;stroke:#57606a}
.l{fill:none;stroke-width:2}.c0{stroke:#0072b2;fill:#0072b2}.c1{stroke:#009e73;fill:#009e73}.c2{stroke:#d55e00;fill:#d55e00}.c3{stroke:#cc79a7;fill:#cc79a7}.c4{stroke:#57606a;fill:#57606a}
.l.c0,.l.c1,.l.c2,.l.c3,.l.c4{fill:none}.d{stroke-dasharray:5 4}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.bg{fill:#0d1117}.g{stroke:#30363d}.f{stroke:#8b949e}.c0{stroke:#56b4e9;fill:#56b4e9}.c4{stroke:#8b949e;fill:#8b949e}.l.c0,.l.c4{fill:none}}
</style>
<rect class="bg" width="%d" height="%d"/>
`

// axis maps values onto pixels.
type axis struct {
	low, high  float64
	from, to   float64 // pixels
	log        bool
	tickValues []float64
}

func (a axis) at(v float64) float64 {
	v = min(max(v, a.low), a.high)
	if a.log {
		return a.from + (a.to-a.from)*math.Log(v/a.low)/math.Log(a.high/a.low)
	}
	return a.from + (a.to-a.from)*(v-a.low)/(a.high-a.low)
}

// logAxis covers low to high with whole decades.
func logAxis(low, high, from, to float64) axis {
	low, high = math.Pow(10, math.Floor(math.Log10(max(low, 1e-3)))), math.Pow(10, math.Ceil(math.Log10(max(high, 1e-3))))
	if high <= low {
		high = low * 10
	}
	a := axis{low: low, high: high, from: from, to: to, log: true}
	for v := low; v <= high*1.001; v *= 10 {
		a.tickValues = append(a.tickValues, v)
	}
	return a
}

// linearAxis covers 0 to high with about five round steps.
func linearAxis(high, from, to float64) axis {
	step := math.Pow(10, math.Floor(math.Log10(max(high, 1e-3)/5)))
	for _, m := range []float64{1, 2, 5, 10} {
		if high/(step*m) <= 6 {
			step *= m
			break
		}
	}
	a := axis{high: step * max(1, math.Ceil(high/step)), from: from, to: to}
	for i := 0.0; i*step <= a.high*1.001; i++ {
		a.tickValues = append(a.tickValues, i*step)
	}
	return a
}

type line struct {
	name, class string
	values      []float64 // 0 on a log axis: nothing to draw
}

// SVG draws the result: steps along the rate (or the number of callers), latencies on a logarithmic axis, and below them what was offered,
// answered and good per second.
func (r *Result) SVG(w io.Writer) error {
	var (
		b       strings.Builder
		xs      []float64
		unit    = "requests offered per second"
		lats    = []line{{name: "p50", class: "c0"}, {name: "p90", class: "c1"}, {name: "p99", class: "c2"}, {name: "p99.9", class: "c3"}}
		rates   = []line{{name: "offered", class: "c4 d"}, {name: "answered", class: "c0"}, {name: "good", class: "c1"}, {name: "refused", class: "c2 d"}}
		low     = math.Inf(1)
		high    = r.Deadline
		highest float64
		widest  float64
	)
	for _, s := range r.Steps {
		x := s.Rate
		if r.Arrivals == closedLoop {
			x, unit = float64(s.Callers), "callers"
		}
		xs, widest = append(xs, x), max(widest, x)
		for i, v := range []float64{s.Latency.P50, s.Latency.P90, s.Latency.P99, s.Latency.P999} {
			lats[i].values = append(lats[i].values, v)
			if v > 0 {
				low, high = min(low, v), max(high, v)
			}
		}
		for i, v := range []float64{s.OfferedRate, s.AnsweredRate, s.Goodput, perSecond(s.Refused, s.Seconds)} {
			rates[i].values = append(rates[i].values, v)
			highest = max(highest, v)
		}
	}
	if math.IsInf(low, 1) {
		low, high = 1, max(high, 10)
	}
	title := fmt.Sprintf("%s over %s, bodies of %d bytes", clean(r.Model), r.Protocol, r.BodyBytes)
	if r.TLS {
		title += ", TLS"
	}
	fmt.Fprintf(&b, svgHead, svgWidth, svgHeight, svgWidth, svgHeight, html.EscapeString("Latency and goodput of "+title), svgWidth, svgHeight)
	fmt.Fprintf(&b, "<text class=\"t\" x=\"%d\" y=\"28\">%s</text>\n", plotLeft, html.EscapeString(title))
	x := linearAxis(widest, plotLeft, plotRight)
	y := logAxis(low, high, latBottom, latTop)
	panel(&b, x, y, "latency, ms", lats, xs)
	if r.Deadline > 0 {
		at := y.at(r.Deadline)
		fmt.Fprintf(&b, "<line class=\"l c4 d\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\">deadline</text>\n", plotLeft, plotRight, at, at, plotLeft+6, at-4)
	}
	panel(&b, x, linearAxis(highest, goodBottom, goodTop), "requests per second", rates, xs)
	fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", (plotLeft+plotRight)/2, svgHeight-24, unit)
	for _, s := range r.Steps {
		if s.GeneratorLate {
			fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\">the generator was late in some steps: their latencies are partly its own</text>\n", plotLeft, svgHeight-6)
			break
		}
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func perSecond(n int64, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return float64(n) / seconds
}

// panel draws one pair of axes with its lines and their legend.
func panel(b *strings.Builder, x, y axis, label string, lines []line, xs []float64) {
	for _, v := range y.tickValues {
		fmt.Fprintf(b, "<line class=\"g\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", plotLeft, plotRight, y.at(v), y.at(v), plotLeft-8, y.at(v)+4, tick(v))
	}
	for _, v := range x.tickValues {
		fmt.Fprintf(b, "<line class=\"g\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.0f\" y2=\"%.0f\"/><text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>\n", x.at(v), x.at(v), y.from, y.to, x.at(v), y.from+18, tick(v))
	}
	fmt.Fprintf(b, "<rect class=\"f\" x=\"%d\" y=\"%.0f\" width=\"%d\" height=\"%.0f\"/>\n", plotLeft, y.to, plotRight-plotLeft, y.from-y.to)
	fmt.Fprintf(b, "<text transform=\"translate(22 %.0f) rotate(-90)\" text-anchor=\"middle\">%s</text>\n", (y.from+y.to)/2, label)
	for i, l := range lines {
		var points []string
		for k, v := range l.values {
			if v <= 0 && y.log {
				continue // nothing was answered
			}
			points = append(points, fmt.Sprintf("%.1f,%.1f", x.at(xs[k]), y.at(v)))
			fmt.Fprintf(b, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n", l.class[:2], x.at(xs[k]), y.at(v))
		}
		fmt.Fprintf(b, "<polyline class=\"l %s\" points=\"%s\"/>\n", l.class, strings.Join(points, " "))
		row := y.to + 12 + float64(i*legendRow)
		fmt.Fprintf(b, "<line class=\"l %s\" x1=\"%d\" x2=\"%d\" y1=\"%.0f\" y2=\"%.0f\"/><text x=\"%d\" y=\"%.0f\">%s</text>\n", l.class, legendLeft, legendLeft+24, row, row, legendLeft+32, row+4, l.name)
	}
}

// tick is a value on an axis.
func tick(v float64) string {
	if v >= 1e5 {
		return fmt.Sprintf("%gk", math.Round(v/100)/10)
	}
	return fmt.Sprintf("%g", math.Round(v*1e4)/1e4)
}
