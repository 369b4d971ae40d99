// v2.go: encoding/json/v2, where the toolchain has it.

//go:build goexperiment.jsonv2

package jsonbench

import json "encoding/json/v2"

var (
	v2Unmarshal = func(b []byte, v any) error { return json.Unmarshal(b, v) }
	v2Marshal   = func(v any) ([]byte, error) { return json.Marshal(v) }
)
