// catalog.go: every model by name, for tools.
package modeltest

import "github.com/inferd/inferd/inference/tensor"

// All has a constructor for each model by its name. BigVariables comes with 64 MiB, AllTypes once per type that can be carried.
func All() map[string]func() *Model {
	all := map[string]func() *Model{
		"half_plus_two": HalfPlusTwo, "matrix_half_plus_two": MatrixHalfPlusTwo, "two_layer": TwoLayer, "strings": Strings,
		"two_inputs": TwoInputs, "counter": Counter, "scalar": Scalar, "fixed_batch": FixedBatch, "defaults": Defaults,
		"keeps_input": KeepsInput, "variable_length": VariableLength, "functions": Functions, "nan": NaN, "tf_example": TFExample, "examples": Examples,
		"big_variables": func() *Model { return BigVariables(64, 1) }, "hungry": func() *Model { return Hungry(0) },
		"busy": func() *Model { return Busy(64) }, "dense": func() *Model { return Dense(64) },
		"sleepy": Sleepy, "never_returns": NeverReturns, "dequeues": Dequeues, "crasher": Crasher, "unknown_op": UnknownOp, "no_run": NoRun,
		"captures": Captures, "loop": Loop, "branches": Branches, "old_style": OldStyle, "words": Words,
		"brightness": Brightness, "level": Level,
		"brightness_224": func() *Model { return Colours(224, 224) }, "level_16000": func() *Model { return Levels(16000) },
		"simple": Simple, "simple_int8": SimpleInt8, "simple_string": SimpleString, "simple_identity": SimpleIdentity, "custom_identity_int32": CustomIdentity,
		"nan_above": func() *Model { return NaNAbove(100, 2) }, "slow": func() *Model { return Slow(20) }, "leaky": func() *Model { return Leaky(1024) },
	}
	for d := tensor.Float; d <= tensor.Uint4; d++ {
		if d.Carried() {
			all["identity_"+d.Name()] = func() *Model { return AllTypes(d) }
		}
	}
	return all
}
