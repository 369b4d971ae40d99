// nov2.go: GOEXPERIMENT=jsonv2 adds encoding/json/v2 to the comparison.

//go:build !goexperiment.jsonv2

package jsonbench

var (
	v2Unmarshal func([]byte, any) error
	v2Marshal   func(any) ([]byte, error)
)
