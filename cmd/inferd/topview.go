// topview.go: how `inferd top` looks: a function of the report and the width.
package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/inferd/inferd/appliance/admission"
)

// Rows of the view that are shown; what is left out is counted.
const (
	mostOwners  = 12
	mostClients = 10
)

// view collects lines, cut to a width.
type view struct {
	b      strings.Builder
	width  int
	colour bool
}

// line adds one; style is a colour, or none.
func (v *view) line(style, format string, args ...any) {
	text := []rune(strings.TrimRight(plain(fmt.Sprintf(format, args...)), " "))
	if len(text) > v.width {
		text = append(text[:max(0, v.width-1)], '>')
	}
	if v.colour && style != "" && len(text) > 0 {
		v.b.WriteString(style + string(text) + ansiOff + "\n")
		return
	}
	v.b.WriteString(string(text) + "\n")
}

// table adds lines whose cells, separated by tabs, stand below each other; the first is the head.
func (v *view) table(rows []string) {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 2, 8, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, r)
	}
	_ = t.Flush() // into memory
	for i, l := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		style := ""
		if i == 0 {
			style = ansiBold
		}
		v.line(style, "%s", l)
	}
}

// topView draws the report.
func topView(r *admission.Report, width int, colour bool) string {
	v := &view{width: max(width, 20), colour: colour}
	v.header(r)
	v.memory(r)
	v.models(r)
	v.clients(r)
	return v.b.String()
}

func (v *view) header(r *admission.Report) {
	limit := "no limit is known"
	if l := r.Limit; l.Bytes > 0 {
		limit = fmt.Sprintf("limit %s, reserve %s", size(l.Bytes), size(l.Reserve))
	}
	v.line(ansiBold, "inferd at %s: memory used %s, free %s, %s", r.Time.Format(time.TimeOnly), size(r.Limit.Used), size(r.Free), limit)
	if r.Limit.Why != "" || r.Limit.Source != "" {
		v.line("", "limit from %s: %s", cmp.Or(r.Limit.Source, "unknown"), oneLine(r.Limit.Why))
	}
	style := map[string]string{"some": ansiYellow, "high": ansiRed}[r.Pressure.Level]
	if p := r.Pressure; p.Known {
		events := ""
		if text := byReason(p.Events); text != "" {
			events = "; kernel events: " + text
		}
		v.line(style, "pressure %s: stalled %.1f%% some, %.1f%% full of the last 10 s%s", cmp.Or(p.Level, "none"), p.Some10, p.Full10, events)
	} else {
		v.line(style, "pressure %s (the kernel does not tell it here)", cmp.Or(p.Level, "unknown"))
	}
	if d := r.Disk; d.Refuses {
		v.line(ansiRed, "disk: %s free, below the floor of %s: durable work is refused", size(d.Free), size(d.Floor))
	} else if d.Free > 0 || d.Floor > 0 {
		v.line("", "disk: %s free, floor %s", size(d.Free), size(d.Floor))
	}
	q := r.Requests
	refused := ""
	if text := byReason(q.Refused); text != "" {
		refused = "; refused: " + text
	}
	v.line("", "requests: %d running, %d waiting (%s), in flight %s of %s%s", q.Running, q.Waiting, size(q.WaitingBytes), size(q.InFlight), size(q.Share), refused)
}

func (v *view) memory(r *admission.Report) {
	if len(r.Memory) == 0 {
		return
	}
	most := r.Limit.Bytes
	for _, o := range r.Memory {
		most = max(most, o.Booked, o.Measured)
	}
	barWide := min(40, max(0, v.width-64))
	head := "MEMORY\tBOOKED\tMEASURED\tPEAK\tLIMIT"
	if barWide > 0 {
		head += "\tOF " + size(most)
	}
	rows := []string{head}
	for i, o := range r.Memory {
		if i == mostOwners {
			rows = append(rows, fmt.Sprintf("and %d more", len(r.Memory)-mostOwners))
			break
		}
		name := plain(o.Owner)
		if o.Model != "" {
			name = fmt.Sprintf("%s %s/%d", name, cut(o.Model, 24), o.Version)
		}
		row := fmt.Sprintf("%s\t%s\t%s\t%s\t%s", name, size(o.Booked), sizeOr(o.Measured), sizeOr(o.Peak), sizeOr(o.Limit))
		if barWide > 0 {
			row += "\t" + bar(o.Booked, o.Measured, most, barWide)
		}
		rows = append(rows, row)
	}
	v.line("", "")
	v.table(rows)
}

// bar shows what is measured as #, and what is booked beyond it as -.
func bar(booked, measured, whole int64, width int) string {
	if whole <= 0 {
		return ""
	}
	cells := func(n int64) int { return min(width, int((float64(max(n, 0))/float64(whole))*float64(width)+0.5)) }
	full := cells(measured)
	return strings.Repeat("#", full) + strings.Repeat("-", max(0, cells(booked)-full))
}

func (v *view) models(r *admission.Report) {
	v.line("", "")
	if len(r.Models) == 0 {
		v.line("", "no models")
		return
	}
	rows := []string{"MODEL\tSTATE\tRUN\tWAIT\tPREDICTED MS\tBATCH\tRATE/S\tP50 MS\tP99 MS\tANSWERED\tREFUSED"}
	for _, m := range r.Models {
		state := plain(m.State)
		if m.Pinned {
			state += ", pinned"
		}
		if m.IdleSeconds >= 1 {
			state += ", idle " + (time.Duration(min(m.IdleSeconds, 1e8)) * time.Second).String()
		}
		rows = append(rows, fmt.Sprintf("%s/%d\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s", cut(m.Model, 28), m.Version, state, m.Running, m.Waiting, digits(m.WaitMillis), digits(m.Batch),
			digits(m.Rate), digits(m.P50Millis), digits(m.P99Millis), m.Answered, cmp.Or(byReason(m.Refused), "-")))
	}
	v.table(rows)
}

func (v *view) clients(r *admission.Report) {
	if len(r.Clients) == 0 {
		return
	}
	rows := []string{"CLIENT\tWEIGHT\tRUN\tRATE/S\tREFUSED"}
	for i, c := range r.Clients {
		if i == mostClients {
			rows = append(rows, fmt.Sprintf("and %d more", len(r.Clients)-mostClients))
			break
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%s\t%d", cut(c.Client, 40), digits(c.Weight), c.Running, digits(c.Rate), c.Refused))
	}
	v.line("", "")
	v.table(rows)
}

// byReason is "deadline 3, queue_full 17", without what is 0.
func byReason(counts map[string]int64) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		if counts[k] != 0 {
			parts = append(parts, fmt.Sprintf("%s %d", cut(k, 24), counts[k]))
		}
	}
	return strings.Join(parts, ", ")
}

// cut is a name that fits a table's cell.
func cut(name string, most int) string {
	runes := []rune(plain(name))
	if len(runes) > most {
		return string(runes[:most-1]) + ">"
	}
	return string(runes)
}

func digits(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func sizeOr(n int64) string {
	if n == 0 {
		return "-"
	}
	return size(n)
}

// size is bytes as people read them.
func size(n int64) string {
	for _, u := range []struct {
		name string
		of   int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.of || n <= -u.of {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.of), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
