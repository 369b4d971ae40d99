// entrypoint.go: the names that inferd is started by in the place of TensorFlow Serving, on a machine and in a container.
package main

import (
	"cmp"
	"path/filepath"
)

// entrypointName is what images of TensorFlow Serving are started by. An image of inferd has it as a link, so that whatever replaces only the image's name
// in a deployment, with its arguments and its environment, finds the same.
const entrypointName = "tf_serving_entrypoint.sh"

// verbArgs are the arguments of the root command, whatever name it was started by.
func verbArgs(argv []string, getenv func(string) string) []string {
	given := argv[1:]
	switch filepath.Base(argv[0]) {
	case servingName:
		return append([]string{servingName}, given...)
	case entrypointName:
		name := cmp.Or(getenv("MODEL_NAME"), "model")
		return append([]string{servingName, "--port=8500", "--rest_api_port=8501", "--model_name=" + name,
			"--model_base_path=" + cmp.Or(getenv("MODEL_BASE_PATH"), "/models") + "/" + name}, given...)
	default:
		return append([]string{}, given...) // never nil, for which cobra would take os.Args
	}
}
