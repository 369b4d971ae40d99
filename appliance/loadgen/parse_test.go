// parse_test.go: what is read from the outside: rates, targets, inputs, metadata.
package loadgen

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func TestParseRates(t *testing.T) {
	for text, want := range map[string][]float64{
		"100": {100}, " 0.5 , 2e3": {0.5, 2000}, "10..1000x3": {10, 100, 1000}, "100..10x2,7": {100, 10, 7}, "1..2x2": {1, 2},
	} {
		if got, err := ParseRates(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "x", "NaN", "+Inf", "1e7", "1..2", "1..2x1", "1..2x101", "..x3", "1,,2", strings.Repeat("1,", 100) + "1"} {
		if got, err := ParseRates(text); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}

func FuzzParseRates(f *testing.F) {
	for _, s := range []string{"100", "10..1000x8", "1,2", "1..1e6x100", "..x", "0x1p4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rates, err := ParseRates(text)
		if err != nil {
			return
		}
		if len(rates) == 0 || len(rates) > maxSteps {
			t.Fatalf("%d rates", len(rates))
		}
		for _, r := range rates {
			if !(r >= 0.0009 && r <= MaxRate) {
				t.Fatalf("rate %v", r)
			}
		}
	})
}

func TestSchedules(t *testing.T) {
	s := newSchedule(3, Fixed, 0)
	var last time.Duration
	for range 3_000_001 {
		last = s.next()
	}
	if last != 1e6*time.Second {
		t.Errorf("the 3,000,001st of 3/s is due at %v", last)
	}
	a, b, n := newSchedule(1000, Poisson, 7), newSchedule(1000, Poisson, 7), 0
	for last = 0; last < 100*time.Second; n++ {
		next := a.next()
		if next < last || next != b.next() {
			t.Fatalf("%v after %v", next, last)
		}
		last = next
	}
	if n < 98000 || n > 102000 {
		t.Errorf("%d arrivals in 100 s of 1000/s", n)
	}
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]Target{
		"m":                                   {Model: "m"},
		"m/3":                                 {Model: "m", Version: 3, HasVersion: true},
		"m/labels/stable":                     {Model: "m", Label: "stable"},
		"http://h/v1/models/m":                {Address: "h:8501", Protocol: REST, Model: "m"},
		"https://[::1]:9/v1/models/m:predict": {Address: "[::1]:9", Protocol: REST, TLS: true, Model: "m"},
		"http://h:1/v1/models/m/versions/0:predict": {Address: "h:1", Protocol: REST, Model: "m", HasVersion: true},
		"grpc://h/m":      {Address: "h:8500", Protocol: GRPC, Model: "m"},
		"grpcs://h:2/m/4": {Address: "h:2", Protocol: GRPC, TLS: true, Model: "m", Version: 4, HasVersion: true},
	} {
		if got, err := ParseTarget(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "m/x", "m/-1", "m/labels/", "ftp://h/m", "http://", "http://h/m", "http://h/v1/models/m:classify", "http://h/v1/models/", "http://h:x/v1/models/m"} {
		if got, err := ParseTarget(text); err == nil {
			t.Errorf("%q: %+v, want an error", text, got)
		}
	}
}

func TestParseInput(t *testing.T) {
	x := inference.TensorInfo{Alias: "x", DType: tensor.Int16}
	s := inference.TensorInfo{Alias: "s", DType: tensor.String}
	for doc, infos := range map[string][]inference.TensorInfo{
		`{"inputs":[[1],[-2]]}`:       {x},
		`{"inputs":{"x":[[1],[-2]]}}`: {x},
		`{"instances":[[1],[-2]]}`:    {x},
		`{"instances":[{"x":[1],"s":"a"},{"s":{"b64":"YQ=="},"x":[-2]}]}`: {s, x},
	} {
		in, err := parseInput([]byte(doc), infos)
		if err != nil {
			t.Errorf("%s: %v", doc, err)
			continue
		}
		if got := in["x"]; !got.Shape.Equal(tensor.Shape{2, 1}) || string(got.Data) != "\x01\x00\xfe\xff" {
			t.Errorf("%s: %v", doc, got)
		}
		if len(infos) == 2 && (string(in["s"].Strings[1]) != "a" || len(in["s"].Strings) != 2) {
			t.Errorf("%s: %v", doc, in["s"])
		}
	}
	for _, doc := range []string{``, `[]`, `{}`, `{"inputs":{"y":1}}`, `{"inputs":[[1],[2,3]]}`, `{"inputs":[1,[2]]}`, `{"inputs":70000}`, `{"inputs":1.5}`, `{"inputs":"a"}`, `{"instances":[]}`, `{"instances":1}`,
		`{"inputs":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`} {
		if in, err := parseInput([]byte(doc), []inference.TensorInfo{x}); err == nil {
			t.Errorf("%.40s: %v, want an error", doc, in)
		}
	}
}

func FuzzParseInput(f *testing.F) {
	for _, doc := range []string{`{"inputs":[[1],[2]]}`, `{"instances":[{"x":1,"s":"a"}]}`, `{"inputs":{"s":{"b64":"YQ=="}}}`, `{"inputs":[[],[]]}`} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		for _, d := range []tensor.DType{tensor.Float, tensor.Uint8, tensor.Bool, tensor.Half} {
			in, err := parseInput(doc, []inference.TensorInfo{{Alias: "s", DType: tensor.String}, {Alias: "x", DType: d}})
			if err != nil {
				continue
			}
			if _, err := encodeGRPC(in, Target{Model: "m"}, "serving_default"); err != nil && !strings.Contains(err.Error(), "UTF-8") {
				t.Fatal(err)
			}
		}
	})
}

func FuzzParseMetadata(f *testing.F) {
	f.Add([]byte(metadataDoc))
	f.Fuzz(func(t *testing.T, doc []byte) {
		infos, err := parseMetadata(doc, Target{Model: "m"}, inference.DefaultSignature)
		if err != nil {
			return
		}
		for _, i := range infos {
			n := int64(1)
			for _, d := range i.Shape {
				n *= max(1, min(d, 1000))
				if n > 1000 || len(infos) > 4 {
					return // what is made of it is bounded, but slow
				}
			}
		}
		if in, err := makeUp(rand.New(rand.NewPCG(1, 1)), infos, 2); err == nil {
			if _, err := encodeREST(in, infos, "s"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Every type that is made up has a spelling that reads back.
func TestMadeUpInputs(t *testing.T) {
	for d := tensor.Float; d <= tensor.Uint64; d++ {
		info := inference.TensorInfo{Alias: "x", DType: d, Shape: tensor.Shape{-1, 2, -1}}
		in, err := makeUp(rand.New(rand.NewPCG(1, 2)), []inference.TensorInfo{info}, 3)
		if err != nil {
			continue
		}
		body, err := encodeREST(in, []inference.TensorInfo{info}, "other")
		if err != nil || !strings.HasPrefix(string(body), `{"signature_name":"other","inputs":{"x":[[[`) {
			t.Errorf("%v: %s, %v", d, body, err)
		}
		if d == tensor.Half || d == tensor.BFloat16 {
			continue
		}
		back, err := parseInput(body, []inference.TensorInfo{info})
		if err != nil || !reflect.DeepEqual(back["x"], in["x"]) {
			t.Errorf("%v: %s: %+v, %v, want %+v", d, body, back["x"], err, in["x"])
		}
	}
	if _, err := makeUp(rand.New(rand.NewPCG(1, 2)), []inference.TensorInfo{{Alias: "x", DType: tensor.Float, Shape: tensor.Shape{-1, 1 << 20}}}, 1000); err == nil || !strings.Contains(err.Error(), "send fewer --rows") {
		t.Errorf("error %v", err)
	}
	if _, err := makeUp(rand.New(rand.NewPCG(1, 2)), []inference.TensorInfo{{Alias: "x", DType: tensor.Float, Shape: tensor.Shape{1 << 40, 0}}}, 1); err == nil || !strings.Contains(err.Error(), "it has no elements") {
		t.Errorf("error %v", err)
	}
	if _, err := makeUp(rand.New(rand.NewPCG(1, 2)), []inference.TensorInfo{{Alias: "x", DType: tensor.Complex64, Shape: tensor.Shape{1}}}, 1); err == nil {
		t.Error("a complex number was made up")
	}
}
