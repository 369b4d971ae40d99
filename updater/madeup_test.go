// madeup_test.go: which made-up run is made again, and that it is the one that was proven.
package updater

import (
	"context"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func TestMadeUpIsTheRunThatWasProven(t *testing.T) {
	writes := signature("assign", false, tensor.Float)
	writes.Writes = true
	fussy := signature("fussy", true, tensor.Int32, -1, 3) // takes ones alone
	big := signature("big", false, tensor.Float, 64<<20/4)
	refuses := signature("refuses", true, tensor.String, -1)
	r := &scripted{run: func(_ context.Context, run *inference.Run) (*inference.Result, error) {
		in := run.Inputs[0].Pieces[0]
		if run.Signature.Key == "refuses" || run.Signature.Key == "fussy" && in.Data[0] == 0 {
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonRuntime, "no good")
		}
		return answer(run), nil
	}}
	prove := func(list ...*inference.Signature) (map[string]*inference.Signature, Proof) {
		t.Helper()
		all := signatures(list...)
		p, err := Probe(t.Context(), r, all, ProbeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return all, p
	}

	all, p := prove(signature("a", true, tensor.Float, -1), signature(inference.DefaultSignature, true, tensor.Float, -1))
	if m, err := p.MadeUp(all); err != nil || m.Signature.Key != inference.DefaultSignature {
		t.Errorf("%v, %v: want the default signature", m.Signature, err)
	}
	all, p = prove(writes, refuses, big, fussy)
	m, err := p.MadeUp(all)
	if err != nil || m.Signature != fussy || m.Took != p.Signatures["fussy"].Times[1] {
		t.Fatalf("%+v, %v: want fussy", m, err)
	}
	run, err := m.Run()
	if err != nil {
		t.Fatal(err)
	}
	if shape := run.Inputs[0].Shape(); shape.String() != "[1,3]" || len(run.Outputs) != 1 {
		t.Errorf("inputs of shape %v, outputs %v", shape, run.Outputs)
	}
	if _, err := r.Run(t.Context(), run); err != nil {
		t.Errorf("it was proven, and now: %v", err)
	}

	all, p = prove(writes, refuses, big)
	_, err = p.MadeUp(all)
	for _, want := range []string{`"assign" writes`, `"refuses" was not shown`, `"big": input "x"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v says nothing of %s", err, want)
		}
	}
	if _, err := (Proof{}).MadeUp(nil); err == nil {
		t.Error("a model without signatures has a made-up run")
	}
}
