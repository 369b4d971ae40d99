// compatible.go: whether one version can take another's place without its clients noticing.
package savedmodel

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// ErrIncompatible is wrapped by errors of [Compatible].
var ErrIncompatible = errors.New("requests that are answered now would fail or mean something else")

// Compatible holds the signatures of a new version against those that serve: every request that these take must be taken by the new ones,
// and its answer must have what it had. So a new version may have more signatures, more outputs, more inputs with a default, and take
// more shapes. It names every difference that matters.
func Compatible(serving, next map[string]*inference.Signature) error {
	var faults []string
	for _, key := range slices.Sorted(maps.Keys(serving)) {
		if next[key] == nil {
			faults = append(faults, fmt.Sprintf("signature %q is gone", key))
			continue
		}
		for _, f := range signatureFaults(serving[key], next[key]) {
			faults = append(faults, fmt.Sprintf("signature %q: %s", key, f))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrIncompatible, strings.Join(faults, "; "))
}

func signatureFaults(old, next *inference.Signature) (faults []string) {
	add := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for i := range old.Inputs {
		was := &old.Inputs[i]
		j := next.Input(was.Alias)
		if j < 0 {
			add("input %q is gone", was.Alias)
			continue
		}
		now := &next.Inputs[j]
		switch {
		case was.DType != now.DType:
			add("input %q is %v, it was %v", was.Alias, now.DType, was.DType)
		case !fits(was, now):
			add("input %q is %s, it was %s", was.Alias, shapeText(now), shapeText(was))
		case was.Default != nil && now.Default == nil:
			add("input %q has no default any more", was.Alias)
		}
	}
	for i := range next.Inputs {
		if now := &next.Inputs[i]; now.Default == nil && old.Input(now.Alias) < 0 {
			add("input %q is new and has no default", now.Alias)
		}
	}
	for i := range old.Outputs {
		was := &old.Outputs[i]
		j := next.Output(was.Alias)
		if j < 0 {
			add("output %q is gone", was.Alias)
			continue
		}
		now := &next.Outputs[j]
		switch {
		case was.DType != now.DType:
			add("output %q is %v, it was %v", was.Alias, now.DType, was.DType)
		case !fits(now, was):
			add("output %q is %s, it was %s", was.Alias, shapeText(now), shapeText(was))
		}
	}
	return faults
}

// fits reports whether every shape that a declares is one that b declares.
func fits(a, b *inference.TensorInfo) bool {
	if b.UnknownRank {
		return true
	}
	if a.UnknownRank || len(a.Shape) != len(b.Shape) {
		return false
	}
	for i, d := range b.Shape {
		if d != -1 && d != a.Shape[i] {
			return false
		}
	}
	return true
}

func shapeText(t *inference.TensorInfo) string {
	if t.UnknownRank {
		return "of unknown rank"
	}
	return tensor.Shape(t.Shape).String()
}
