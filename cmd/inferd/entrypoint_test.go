// entrypoint_test.go: what becomes of a command line under each name.
package main

import (
	"slices"
	"testing"
)

func TestNamesOfTheBinary(t *testing.T) {
	env := map[string]string{}
	getenv := func(name string) string { return env[name] }
	for name, c := range map[string]struct {
		argv []string
		env  map[string]string
		want []string
	}{
		"inferd":      {[]string{"/usr/bin/inferd", "status"}, nil, []string{"status"}},
		"nothing":     {[]string{"inferd"}, nil, []string{}},
		"their name":  {[]string{"/usr/bin/tensorflow_model_server", "--port=1"}, nil, []string{servingName, "--port=1"}},
		"their image": {[]string{"/usr/bin/tf_serving_entrypoint.sh"}, nil, []string{servingName, "--port=8500", "--rest_api_port=8501", "--model_name=model", "--model_base_path=/models/model"}},
		"with a model": {[]string{"tf_serving_entrypoint.sh", "--enable_batching"}, map[string]string{"MODEL_NAME": "resnet", "MODEL_BASE_PATH": "/srv"},
			[]string{servingName, "--port=8500", "--rest_api_port=8501", "--model_name=resnet", "--model_base_path=/srv/resnet", "--enable_batching"}},
	} {
		t.Run(name, func(t *testing.T) {
			env = c.env
			if got := verbArgs(c.argv, getenv); !slices.Equal(got, c.want) || got == nil {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
