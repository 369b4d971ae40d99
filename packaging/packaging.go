// packaging.go: what the binary carries of this folder.

// Package packaging has the pins that everything which is fetched is checked against, so that the binary checks as the build does.
package packaging

import (
	_ "embed" // for the line below
	"strings"
)

//go:embed pins.env
var pins string

// Pins are the pinned versions and sums by name, as in pins.env.
func Pins() map[string]string {
	m := make(map[string]string)
	for line := range strings.SplitSeq(pins, "\n") {
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			m[name] = value
		}
	}
	return m
}
