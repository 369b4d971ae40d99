// modellist.go: a list of models that comes over the wire (HandleReloadConfigRequest) in place of the one that was read.
package config

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/wamuir/graft/tensorflow/serving/config_go_proto"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/inferd/inferd/inference"
)

// WithModels is c with the models of the list in place of its own; c is left alone. A model of a name that c lists keeps what the list's
// form cannot say (batching, threads, what is asserted and so on), another begins as c's defaults say. The error is an *inference.Error,
// with TensorFlow Serving's text where it has one, that names every fault.
func (c *Config) WithModels(list *config_go_proto.ModelConfigList) (*Config, []Ignored, error) {
	seen := make(map[string]bool)
	for _, m := range list.GetConfig() {
		_, listed := c.Model(m.GetName())
		switch p := m.GetModelPlatform(); {
		case seen[m.GetName()]:
			return nil, nil, badList("Illegal to list model %s multiple times in config list", m.GetName())
		case listed && p != "" && p != "tensorflow":
			return nil, nil, badList("Illegal to change a model's platform. For model %s platform was tensorflow and new platform requested is %s", m.GetName(), p)
		}
		seen[m.GetName()] = true
	}
	data, err := proto.Marshal(&config_go_proto.ModelServerConfig{Config: &config_go_proto.ModelServerConfig_ModelConfigList{ModelConfigList: list}})
	if err != nil {
		return nil, nil, badList("%v", err)
	}
	msg := dynamicpb.NewMessage(serverConfig())
	if err := proto.Unmarshal(data, msg); err != nil {
		return nil, nil, badList("%v", err)
	}
	src := &source{lines: make(map[string]int)}
	models, ignored, faults := readModels("", nil, msg, func(name string) Model {
		m, _ := c.Model(name)
		m.VersionLabels, m.VersionPolicy = nil, c.Defaults.VersionPolicy
		return m
	}, src)
	next := *c
	next.Models, next.source = models, src
	d := &decoder{source: *src, faults: faults}
	if err := d.finish(&next); err != nil {
		return nil, nil, badList("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if c.source != nil { // the lines of the models are those of others
		lines := maps.Clone(c.source.lines)
		maps.DeleteFunc(lines, func(key string, _ int) bool { return within(key, "models") })
		own := *c.source
		own.lines, next.source = lines, &own
	}
	return &next, ignored, nil
}

func badList(format string, args ...any) error {
	return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, format, args...)
}

// Lines are the faults of a configuration, one a line; of any other error it is the only one.
func Lines(err error) []string {
	var faults Faults
	if !errors.As(err, &faults) {
		return []string{err.Error()}
	}
	lines := make([]string, 0, len(faults))
	for _, f := range faults {
		lines = append(lines, f.Error())
	}
	return slices.Clip(lines)
}
