// golden.go: golden cases: requests that lie in a version folder with the answers that they must get before the version serves.
package updater

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tensor"
)

// Golden is a request and what it must be answered with.
type Golden struct {
	Name    string // empty when the case has none
	Request *inference.Request
	// Want has one tensor per output of Request, nil where nothing is expected of it.
	Want []*tensor.Tensor
	// A number of floating point may differ from the expected one by ATol + RTol * |expected|; everything else must be the same.
	RTol, ATol float64
}

// eachGolden visits the golden cases. name is theirs, for messages.
func eachGolden(cand Candidate, decode Decode, visit func(name string, g Golden) error) error {
	if decode.Golden == nil {
		return nil
	}
	return savedmodel.EachGolden(cand.Dir, func(line int, text []byte) error {
		name := fmt.Sprintf("golden case on line %d of %s", line, savedmodel.GoldenFile)
		g, err := decode.Golden(text, cand.Info.Signatures)
		if err == nil {
			err = checkTypes(g.Request)
		}
		if g.Name != "" {
			name = fmt.Sprintf("golden case %q (line %d of %s)", g.Name, line, savedmodel.GoldenFile)
		}
		if err == nil {
			err = visit(name, g)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

// compareGolden runs the golden cases, one after the other, and counts them in shown.
func compareGolden(ctx context.Context, r inference.Runner, cand Candidate, decode Decode, shown map[string]SignatureProof) error {
	return eachGolden(cand, decode, func(name string, g Golden) error {
		differs, odds := "", ""
		err := runOnce(ctx, r, g.Request, func(outputs []*tensor.Tensor) {
			differs = g.differs(outputs)
			odds = oddOutputs(g.Request, outputs, func(i int) bool { return g.Want[i] == nil })
		})
		switch {
		case err != nil:
			return err
		case differs != "":
			return inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "%s; if the new answer is right, write it into the case", differs)
		case odds != "" && !cand.Model.AllowNaN:
			return inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "%s; if that is right, write nan: warn", odds)
		}
		p := shown[g.Request.Signature.Key]
		p.Golden++
		if odds != "" && len(p.Warnings) == 0 {
			p.Warnings = append(p.Warnings, fmt.Sprintf("%s on %s", odds, name))
		}
		shown[g.Request.Signature.Key] = p
		return nil
	})
}

// differs says where the answer is not the expected one, "" when it is.
func (g *Golden) differs(outputs []*tensor.Tensor) string {
	for i, want := range g.Want {
		if want == nil {
			continue
		}
		got, name := outputs[i], g.Request.Signature.Outputs[g.Request.Outputs[i]].Alias
		n, empty := count(want), count(got) == 0 && count(want) == 0
		switch {
		case got.DType != want.DType:
			return fmt.Sprintf("output %q is of type %s, expected %s", name, got.DType.Name(), want.DType.Name())
		case empty: // JSON cannot tell [0] from [0,4]
			continue
		case !got.Shape.Equal(want.Shape):
			return fmt.Sprintf("output %q has shape %v, expected %v", name, got.Shape, want.Shape)
		}
		first, wrong := -1, 0
		for k := range n {
			if !g.same(got, want, k) {
				if wrong++; first < 0 {
					first = k
				}
			}
		}
		if wrong == 0 {
			continue
		}
		text := fmt.Sprintf("output %q%s is %s, expected %s", name, indexOf(want.Shape, first), element(got, first), element(want, first))
		if floating(want.DType) {
			text += fmt.Sprintf(" (rtol %v, atol %v)", g.RTol, g.ATol)
		}
		if n > 1 {
			text += fmt.Sprintf(", the first of %d of %d elements that differ", wrong, n)
		}
		return text
	}
	return ""
}

// same compares one element.
func (g *Golden) same(got, want *tensor.Tensor, k int) bool {
	switch {
	case want.DType == tensor.String:
		return string(got.Strings[k]) == string(want.Strings[k])
	case !floating(want.DType):
		size := want.DType.Size()
		return string(got.Data[k*size:(k+1)*size]) == string(want.Data[k*size:(k+1)*size])
	}
	x, w := float(got, k), float(want, k)
	switch {
	case math.IsNaN(w):
		return math.IsNaN(x)
	case x == w: // the infinities too
		return true
	}
	return !math.IsInf(w, 0) && math.Abs(x-w) <= g.ATol+g.RTol*math.Abs(w)
}

// count is the number of elements.
func count(t *tensor.Tensor) int {
	if t.DType == tensor.String {
		return len(t.Strings)
	}
	return len(t.Data) / max(1, t.DType.Size())
}

// floating reports whether JSON writes the type's numbers with a fraction: the types for which the tolerances are.
func floating(d tensor.DType) bool { return d == tensor.Float || d == tensor.Double }

func float(t *tensor.Tensor, k int) float64 {
	if t.DType == tensor.Double {
		return math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*k:]))
	}
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*k:])))
}

// indexOf is the index of the element that is the kth, "[0,2]"; "" in a scalar.
func indexOf(s tensor.Shape, k int) string {
	if len(s) == 0 {
		return ""
	}
	at := make(tensor.Shape, len(s))
	for d := len(s) - 1; d >= 0; d-- {
		at[d], k = int64(k)%s[d], k/int(s[d])
	}
	return at.String()
}

// element is one element in words.
func element(t *tensor.Tensor, k int) string {
	le, size := binary.LittleEndian, t.DType.Size()
	switch t.DType {
	case tensor.Float:
		return strconv.FormatFloat(float(t, k), 'g', -1, 32)
	case tensor.Double:
		return strconv.FormatFloat(float(t, k), 'g', -1, 64)
	case tensor.String:
		return fmt.Sprintf("%.64q", t.Strings[k])
	case tensor.Bool:
		return strconv.FormatBool(t.Data[k] != 0)
	case tensor.Int8:
		return strconv.Itoa(int(int8(t.Data[k])))
	case tensor.Int16:
		return strconv.Itoa(int(int16(le.Uint16(t.Data[2*k:]))))
	case tensor.Int32:
		return strconv.Itoa(int(int32(le.Uint32(t.Data[4*k:]))))
	case tensor.Int64:
		return strconv.FormatInt(int64(le.Uint64(t.Data[8*k:])), 10)
	case tensor.Uint8:
		return strconv.Itoa(int(t.Data[k]))
	case tensor.Uint32:
		return strconv.FormatUint(uint64(le.Uint32(t.Data[4*k:])), 10)
	case tensor.Uint64:
		return strconv.FormatUint(le.Uint64(t.Data[8*k:]), 10)
	}
	return fmt.Sprintf("%x", t.Data[k*size:(k+1)*size])
}
