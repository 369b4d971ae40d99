// picture.go: the pictures, written as SVG: bars for the servers side by side, lines for what grows.
package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// style has colours that can be told apart without seeing red and green, on light and on dark.
const style = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">
<style>
text{font:12px sans-serif;fill:#24292f}.t{font-size:15px;font-weight:600}.m{font-weight:600}.bg{fill:#fff}.g{stroke:#d0d7de;stroke-width:1}
.l{fill:none;stroke-width:2}.c0{stroke:#0072b2;fill:#0072b2}.c1{stroke:#d55e00;fill:#d55e00}.c2{stroke:#009e73;fill:#009e73}.c3{stroke:#cc79a7;fill:#cc79a7}
.l.c0,.l.c1,.l.c2,.l.c3{fill:none}.us{fill:#0072b2}.them{fill:#8c959f}.us2{fill:#0072b2;opacity:.45}.them2{fill:#8c959f;opacity:.45}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.bg{fill:#0d1117}.g{stroke:#30363d}.us,.us2{fill:#56b4e9}.c0{stroke:#56b4e9;fill:#56b4e9}.l.c0{fill:none}}
</style>
<rect class="bg" width="%d" height="%d"/>
`

func head(w, h int, title string) string {
	t := html.EscapeString(title)
	return fmt.Sprintf(style, w, h, w, h, t, w, h) + fmt.Sprintf("<text class=\"t\" x=\"16\" y=\"26\">%s</text>\n", t)
}

// bar is a server in one group; Second, where there is one, is drawn behind it, paler.
type bar struct {
	label         string
	value, second float64
	text          string
	us            bool
}

type group struct {
	label string
	bars  []bar
}

// bars draws the groups below each other, each on a scale of its own.
func bars(title string, groups []group) string {
	const width, left, right, row = 760, 230, 560, 20
	height := 44
	for _, g := range groups {
		height += 30 + row*len(g.bars)
	}
	var w strings.Builder
	w.WriteString(head(width, height, title))
	y := 52
	for _, g := range groups {
		fmt.Fprintf(&w, "<text class=\"m\" x=\"16\" y=\"%d\">%s</text>\n", y+4, html.EscapeString(g.label))
		y += 14
		most := 0.0
		for _, b := range g.bars {
			most = max(most, b.value, b.second)
		}
		for _, b := range g.bars {
			class := "them"
			if b.us {
				class = "us"
			}
			length := func(v float64) float64 { return max(1, (right-left)*v/most) }
			fmt.Fprintf(&w, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>", left-8, y+12, html.EscapeString(b.label))
			if b.second > 0 {
				fmt.Fprintf(&w, "<rect class=\"%s2\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"14\"/>", class, left, y, length(b.second))
			}
			fmt.Fprintf(&w, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"14\"/>", class, left, y, length(b.value))
			fmt.Fprintf(&w, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", left+length(max(b.value, b.second))+8, y+12, html.EscapeString(b.text))
			y += row
		}
		y += 16
	}
	w.WriteString("</svg>\n")
	return w.String()
}

// picturesOf are the pictures by file name.
func picturesOf(entries []entry) map[string]string {
	s := sortOut(entries)
	out := map[string]string{}
	if len(s.cells) > 0 {
		out["peers-throughput.svg"] = bars(fmt.Sprintf("Requests per second at 64 connections, each server's best protocol (%s)", s.date), s.groups(64, func(c *cell) bar {
			return bar{value: c.Rate, text: short(c.Rate)}
		}))
		out["peers-latency.svg"] = bars(fmt.Sprintf("Latency at 1 connection, ms: p50, and p99 paler (%s)", s.date), s.groups(1, func(c *cell) bar {
			return bar{value: c.P50, second: c.P99, text: short(c.P50) + " / " + short(c.P99)}
		}))
	}
	if len(s.starts) > 0 {
		out["peers-memory.svg"] = bars(fmt.Sprintf("Memory (PSS) with the model loaded and nobody asking, MB (%s)", s.date), s.perServer(func(st *start) float64 { return st.IdleMB }, "MB"))
		out["peers-start.svg"] = bars(fmt.Sprintf("From start to the first right answer, seconds (%s)", s.date), s.perServer(func(st *start) float64 { return st.ReadySecs }, "s"))
	}
	for name, svg := range growthPictures(s.points) {
		out[name] = svg
	}
	return out
}

// groups has for each model each server's fastest protocol.
func (s *sorted) groups(conns int, of func(*cell) bar) (all []group) {
	for _, model := range s.models {
		g := group{label: model}
		for _, peer := range s.peers {
			var best *cell
			for _, wire := range s.wires {
				c := s.cells[(&cell{Peer: peer, Model: model, Wire: wire, Connections: conns}).key()]
				if c != nil && (best == nil || c.Rate > best.Rate) {
					best = c
				}
			}
			if best == nil || best.Rate == 0 {
				continue
			}
			b := of(best)
			b.label, b.us = peer+", "+best.Wire, peer == "inferd"
			g.bars = append(g.bars, b)
		}
		if len(g.bars) > 0 {
			all = append(all, g)
		}
	}
	return all
}

func (s *sorted) perServer(of func(*start) float64, unit string) (all []group) {
	for _, model := range s.models {
		g := group{label: model}
		for _, peer := range s.peers {
			if st := s.starts[model+"/"+peer]; st != nil && of(st) > 0 {
				g.bars = append(g.bars, bar{label: peer, value: of(st), text: short(of(st)) + " " + unit, us: peer == "inferd"})
			}
		}
		if len(g.bars) > 0 {
			all = append(all, g)
		}
	}
	return all
}

// axis is logarithmic, over whole decades.
type axis struct{ low, high, from, to float64 }

func newAxis(values []float64, from, to float64) axis {
	low, high := math.Inf(1), 0.0
	for _, v := range values {
		if v > 0 {
			low, high = min(low, v), max(high, v)
		}
	}
	if high == 0 {
		low, high = 1, 10
	}
	a := axis{math.Pow(10, math.Floor(math.Log10(low)+1e-9)), math.Pow(10, math.Ceil(math.Log10(high)-1e-9)), from, to}
	if a.high <= a.low {
		a.high = a.low * 10
	}
	return a
}

func (a axis) at(v float64) float64 {
	return a.from + (a.to-a.from)*math.Log(v/a.low)/math.Log(a.high/a.low)
}

func (a axis) ticks() (all []float64) {
	for v := a.low; v <= a.high*1.001; v *= 10 {
		all = append(all, v)
	}
	return all
}

// series is one line.
type series struct {
	name   string
	xs, ys []float64
}

// tick is a value on an axis: 10k, 1M.
func tick(v float64) string {
	for _, u := range []struct {
		of   float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.of {
			return fmt.Sprintf("%g%s", math.Round(v/u.of*10)/10, u.name)
		}
	}
	return fmt.Sprintf("%g", math.Round(v*1e4)/1e4)
}

// lines draws series on two logarithmic axes, with a sentence below.
func lines(title, xLabel, yLabel, sentence string, all []series) string {
	const width, height, left, right, top, bottom = 760, 400, 80, 560, 48, 310
	var xs, ys []float64
	for _, s := range all {
		xs, ys = append(xs, s.xs...), append(ys, s.ys...)
	}
	x, y := newAxis(xs, left, right), newAxis(ys, bottom, top)
	var w strings.Builder
	w.WriteString(head(width, height, title))
	for _, v := range y.ticks() {
		fmt.Fprintf(&w, "<line class=\"g\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", left, right, y.at(v), y.at(v), left-8, y.at(v)+4, tick(v))
	}
	for _, v := range x.ticks() {
		fmt.Fprintf(&w, "<line class=\"g\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", x.at(v), x.at(v), top, bottom, x.at(v), bottom+18, tick(v))
	}
	fmt.Fprintf(&w, "<text transform=\"translate(22 %d) rotate(-90)\" text-anchor=\"middle\">%s</text>\n", (top+bottom)/2, html.EscapeString(yLabel))
	fmt.Fprintf(&w, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", (left+right)/2, bottom+40, html.EscapeString(xLabel))
	for i, s := range all {
		var points []string
		for k := range s.xs {
			if s.ys[k] <= 0 {
				continue
			}
			px, py := x.at(s.xs[k]), y.at(s.ys[k])
			points = append(points, fmt.Sprintf("%.1f,%.1f", px, py))
			fmt.Fprintf(&w, "<circle class=\"c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", i%4, px, py)
		}
		fmt.Fprintf(&w, "<polyline class=\"l c%d\" points=\"%s\"/>\n", i%4, strings.Join(points, " "))
		row := top + 10 + 20*i
		fmt.Fprintf(&w, "<line class=\"l c%d\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/><text x=\"%d\" y=\"%d\">%s</text>\n", i%4, right+12, right+36, row, row, right+42, row+4, html.EscapeString(s.name))
	}
	for i, line := range wrap(sentence, 108) {
		fmt.Fprintf(&w, "<text x=\"16\" y=\"%d\">%s</text>\n", bottom+62+16*i, html.EscapeString(line))
	}
	w.WriteString("</svg>\n")
	return w.String()
}

// wrap breaks a text between words.
func wrap(text string, width int) (all []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			all, line = append(all, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	if line != "" {
		all = append(all, line)
	}
	return all
}
