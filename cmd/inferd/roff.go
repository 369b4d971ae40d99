// roff.go: text as manual pages have it.
package main

import (
	"fmt"
	"strings"
)

// roff is a manual page in the making.
type roff struct{ b strings.Builder }

// newPage begins the page name(section).
func newPage(name, section string) *roff {
	r := &roff{}
	fmt.Fprintf(&r.b, ".\\\" Made by `inferd manual`; do not edit.\n.TH %s %s \"\" \"inferd %s\" inferd\n.nh\n.ad l\n", strings.ToUpper(r.escape(name)), section, r.escape(version))
	return r
}

// escape takes from text what roff would read as its own. A hyphen stays one that can be copied.
func (r *roff) escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`, "`", `\(ga`).Replace(s)
}

// inline is a line of running text; what stands in backquotes is bold.
func (r *roff) inline(s string) string {
	parts := strings.Split(s, "`")
	if len(parts)%2 == 0 { // one is open
		return guard(r.escape(s))
	}
	for i, p := range parts {
		if parts[i] = r.escape(p); i%2 == 1 {
			parts[i] = `\fB` + parts[i] + `\fP`
		}
	}
	return guard(strings.Join(parts, ""))
}

// guard keeps a line of text from being a request.
func guard(s string) string {
	if strings.HasPrefix(s, ".") {
		return `\&` + s
	}
	return s
}

func (r *roff) section(title string) { r.b.WriteString(".SH " + title + "\n") }

func (r *roff) subsection(title string) { r.b.WriteString(".SS " + r.escape(title) + "\n") }

// text writes paragraphs; an empty line is between them, and a line that is indented stands as it is.
func (r *roff) text(s string) { r.paragraphs(s, ".PP") }

func (r *roff) paragraphs(s, next string) {
	literal := false
	for line := range strings.SplitSeq(strings.TrimSpace(s), "\n") {
		if indented := strings.HasPrefix(line, "  "); indented != literal {
			literal = indented
			r.b.WriteString(map[bool]string{true: next + "\n.nf\n", false: ".fi\n"}[literal])
		}
		switch {
		case literal:
			r.b.WriteString(guard(r.escape(line)) + "\n")
		case strings.TrimSpace(line) == "":
			r.b.WriteString(next + "\n")
		default:
			r.b.WriteString(r.inline(line) + "\n")
		}
	}
	if literal {
		r.b.WriteString(".fi\n")
	}
}

// verbatim writes lines as they are.
func (r *roff) verbatim(s string) {
	r.b.WriteString(".nf\n")
	for line := range strings.SplitSeq(strings.Trim(s, "\n"), "\n") {
		r.b.WriteString(guard(r.escape(line)) + "\n")
	}
	r.b.WriteString(".fi\n")
}

// entry writes a term and what it means.
func (r *roff) entry(term, meaning string) {
	r.b.WriteString(".TP\n\\fB" + r.escape(term) + "\\fP\n")
	r.paragraphs(meaning, ".IP")
}
