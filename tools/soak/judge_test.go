// judge_test.go: that a leak is found, and that noise is none.
package main

import (
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// series is n samples, a second apart, of something that holds 100 MB and the like, swings as a swap makes it, and warms up for a third.
func series(n int, change func(i int, s *sample)) (all []sample) {
	random := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		s := sample{at: time.Duration(i) * time.Second, memory: 100e6, core: 40e6, descriptors: 60, threads: 50, processes: 4, memfiles: 12, disk: 20e6}
		if i < n/3 {
			s.memory -= 50e6 * float64(n/3-i) / float64(n/3)
		}
		if i%5 == 0 { // a swap
			s.memory += 30e6
			s.descriptors += 12
			s.processes++
			s.threads += 9
		}
		s.memory += random.NormFloat64() * 2e6
		if change != nil {
			change(i, &s)
		}
		all = append(all, s)
	}
	return all
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		samples int
		change  func(i int, s *sample)
		want    string // what grows; empty: nothing
	}{
		"flat, a minute":      {60, nil, ""},
		"flat, half an hour":  {600, nil, ""},
		"memory":              {60, func(i int, s *sample) { s.memory += float64(i) * 1e6 }, "memory of all processes"},
		"memory, slow":        {600, func(i int, s *sample) { s.memory += float64(i) * 5e4 }, "memory of all processes"},
		"memory of the core":  {60, func(i int, s *sample) { s.core += float64(i) * 4e5 }, "memory of the core"},
		"a descriptor in 5 s": {60, func(i int, s *sample) { s.descriptors += float64(i / 5) }, "descriptors"},
		"threads":             {60, func(i int, s *sample) { s.threads += float64(i) }, "threads"},
		"a worker that stays": {600, func(i int, s *sample) { s.processes += float64(i / 100) }, "processes"},
		"disk":                {60, func(i int, s *sample) { s.disk += float64(i) * 1e6 }, "disk"},
		"what shrinks":        {60, func(i int, s *sample) { s.memory -= float64(i) * 1e6 }, ""},
		"one high moment":     {60, func(i int, s *sample) { s.disk += map[bool]float64{true: 5e8}[i == 59] }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := judge(io.Discard, series(c.samples, c.change))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want+" grows")) {
				t.Errorf("judged %v, want %q", err, c.want)
			}
		})
	}
	if judge(io.Discard, series(10, nil)) == nil {
		t.Error("ten samples were enough")
	}
}
