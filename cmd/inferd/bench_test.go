// bench_test.go: the parts of `inferd bench` that need no server.
package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseCPUs(t *testing.T) {
	var want unix.CPUSet
	for _, c := range []int{0, 2, 3} {
		want.Set(c)
	}
	if got, err := parseCPUs("0,2-3"); err != nil || *got != want {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "x", "-1", "3-2", "1024", "0-99999999999", "1,,2"} {
		if _, err := parseCPUs(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
