// wire_test.go: what the bench makes of wrong answers.
package main

import "testing"

func TestNear(t *testing.T) {
	if err := near([]float32{1, 2}, []float32{1, 2.00001}); err != nil {
		t.Error(err)
	}
	for _, got := range [][]float32{{1}, {1, 2.1}, {}} {
		if near(got, []float32{1, 2}) == nil {
			t.Errorf("%v passed for [1 2]", got)
		}
	}
}
