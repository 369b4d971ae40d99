// modelconfig.go: TensorFlow Serving's model_config_file, and the form of it that carries signature assertions.
package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	for_core_protos "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	"github.com/wamuir/graft/tensorflow/serving/config_go_proto"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
)

// The numbers of our fields in the messages below lie far from theirs, so that bytes can be read as either.
const (
	fieldModelConfig  = 1001 // of ModelServerConfig
	fieldSignatureDef = 1001 // of ModelConfig
)

// serverConfig is the descriptor of a message that reads both forms of the file: TensorFlow Serving's ModelServerConfig, its fields
// under its numbers, with model_config beside model_config_list, and signature_def in each model.
var serverConfig = sync.OnceValue(func() protoreflect.MessageDescriptor {
	theirs := (&config_go_proto.ModelServerConfig{}).ProtoReflect().Descriptor()
	model := protodesc.ToDescriptorProto((&config_go_proto.ModelConfig{}).ProtoReflect().Descriptor())
	list := protodesc.ToDescriptorProto((&config_go_proto.ModelConfigList{}).ProtoReflect().Descriptor())
	server := protodesc.ToDescriptorProto(theirs)
	const pkg = ".inferd.config."
	entry := &descriptorpb.DescriptorProto{Name: proto.String("NamedSignatureDef"), Field: []*descriptorpb.FieldDescriptorProto{
		{Name: proto.String("key"), Number: proto.Int32(1), Label: optional, Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()},
		messageField("signature_def", 2, optional, ".tensorflow.SignatureDef"),
	}}
	model.Field = append(model.Field, messageField("signature_def", fieldSignatureDef, repeated, pkg+"NamedSignatureDef"))
	server.Field = append(server.Field, messageField("model_config", fieldModelConfig, repeated, pkg+"ModelConfig"))
	for _, m := range []*descriptorpb.DescriptorProto{model, list, server} {
		for _, f := range m.Field { // their messages that are copied here refer to the copies
			if name, ok := strings.CutPrefix(f.GetTypeName(), ".tensorflow.serving.ModelConfig"); ok {
				f.TypeName = proto.String(pkg + "ModelConfig" + name)
			}
		}
	}
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("inferd/config/model_server_config.proto"), Package: proto.String(pkg[1 : len(pkg)-1]), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{model, list, server, entry},
		Dependency:  []string{theirs.ParentFile().Path(), (&for_core_protos.SignatureDef{}).ProtoReflect().Descriptor().ParentFile().Path()},
	}
	for _, m := range []proto.Message{&config_go_proto.FileSystemStoragePathSourceConfig{}, &config_go_proto.LoggingConfig{}, &anypb.Any{}} {
		file.Dependency = append(file.Dependency, m.ProtoReflect().Descriptor().ParentFile().Path())
	}
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		panic("config: " + err.Error()) // made here of constants, and a test reads with it
	}
	return fd.Messages().ByName("ModelServerConfig")
})

var (
	optional = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
	repeated = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
)

func messageField(name string, number int32, label *descriptorpb.FieldDescriptorProto_Label, typeName string) *descriptorpb.FieldDescriptorProto {
	return &descriptorpb.FieldDescriptorProto{Name: proto.String(name), Number: proto.Int32(number), Label: label,
		Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(typeName)}
}

// ParseModelServerConfig reads a model_config_file in either form; name is used in messages. Models begin as defaults say. Relative base
// paths are left as they are. The error is a [Faults] with lines.
func ParseModelServerConfig(name string, data []byte, defaults ModelOptions) ([]Model, []Ignored, error) {
	models, ignored, faults := parseModelServerConfig(name, data, defaults, &source{lines: make(map[string]int)})
	if err := faults.err(); err != nil {
		return nil, ignored, err
	}
	return models, ignored, nil
}

// parseModelServerConfig notes in src the line of each model. Faults of single models leave the others in the list.
func parseModelServerConfig(name string, data []byte, defaults ModelOptions, src *source) ([]Model, []Ignored, Faults) {
	msg := dynamicpb.NewMessage(serverConfig())
	if faults := parseText(name, data, msg); faults != nil {
		return nil, nil, faults
	}
	return readModels(name, nameLines(data), msg, func(string) Model { return Model{ModelOptions: defaults} }, src)
}

// readModels reads the models of a message of serverConfig. Each begins as base says.
func readModels(name string, lines map[string][]int, msg protoreflect.Message, base func(name string) Model, src *source) ([]Model, []Ignored, Faults) {
	fields := serverConfig().Fields()
	if msg.Has(fields.ByName("custom_model_config")) {
		return nil, nil, Faults{{File: name, Msg: "custom_model_config is not supported; write model_config_list { config {...} }"}}
	}
	var entries []protoreflect.Message
	for _, list := range []protoreflect.List{
		msg.Get(fields.ByName("model_config_list")).Message().Get(serverConfig().Parent().(protoreflect.FileDescriptor).Messages().ByName("ModelConfigList").Fields().ByName("config")).List(),
		msg.Get(fields.ByName("model_config")).List(),
	} {
		for i := range list.Len() {
			entries = append(entries, list.Get(i).Message())
		}
	}
	if len(entries) > MaxModels {
		return nil, nil, Faults{{File: name, Msg: fmt.Sprintf("%d models, at most %d can be listed", len(entries), MaxModels)}}
	}
	var (
		models  []Model
		ignored []Ignored
		faults  Faults
		used    = make(map[string]int)
	)
	for i, e := range entries {
		m := &config_go_proto.ModelConfig{}
		if err := convert(e, m); err != nil {
			return nil, nil, Faults{{File: name, Msg: err.Error()}}
		}
		line := 0
		if at := lines[m.Name]; used[m.Name] < len(at) {
			line = at[used[m.Name]]
			used[m.Name]++
		}
		src.lines[fmt.Sprintf("models[%d]", i)] = line
		r := &modelReader{file: name, line: line, model: base(m.Name)}
		r.model.Name, r.model.BasePath = m.Name, m.BasePath
		r.read(m, e)
		models = append(models, r.model)
		ignored, faults = append(ignored, r.ignored...), append(faults, r.faults...)
	}
	return models, ignored, faults
}

// convert copies what both messages have under the same numbers.
func convert(from protoreflect.Message, to proto.Message) error {
	b, err := proto.Marshal(from.Interface())
	if err != nil {
		return err
	}
	return proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, to)
}

type modelReader struct {
	file    string
	line    int
	model   Model
	ignored []Ignored
	faults  Faults
}

func (r *modelReader) faultf(key, format string, args ...any) {
	r.faults = append(r.faults, Fault{File: r.file, Line: r.line, Key: key, Msg: "model " + shorten(r.model.Name) + ": " + fmt.Sprintf(format, args...)})
}

func (r *modelReader) read(m *config_go_proto.ModelConfig, e protoreflect.Message) {
	if p := m.GetModelPlatform(); p != "" && p != "tensorflow" {
		r.faultf("model_platform", "%q is not served here; write \"tensorflow\"", shorten(p))
	}
	if t := m.GetModelType(); t == config_go_proto.ModelType_OTHER { //nolint:staticcheck // SA1019: old files still carry it
		r.faultf("model_type", "OTHER is not served here; write model_platform: \"tensorflow\"")
	}
	switch p := m.GetModelVersionPolicy().GetPolicyChoice().(type) {
	case nil:
		if m.GetModelVersionPolicy() != nil {
			r.model.VersionPolicy = VersionPolicy{Latest: 1}
		}
	case *config_go_proto.FileSystemStoragePathSourceConfig_ServableVersionPolicy_Latest_:
		r.model.VersionPolicy = VersionPolicy{Latest: max(1, int(p.Latest.GetNumVersions()))}
	case *config_go_proto.FileSystemStoragePathSourceConfig_ServableVersionPolicy_All_:
		r.model.VersionPolicy = VersionPolicy{All: true}
	case *config_go_proto.FileSystemStoragePathSourceConfig_ServableVersionPolicy_Specific_:
		if len(p.Specific.GetVersions()) == 0 {
			r.faultf("model_version_policy.specific", "names no version; write specific { versions: 1 }")
			break
		}
		r.model.VersionPolicy = VersionPolicy{Specific: slices.Clone(p.Specific.GetVersions())}
	}
	if len(m.GetVersionLabels()) > 0 {
		r.model.VersionLabels = m.GetVersionLabels()
	}
	r.logging(m.GetLoggingConfig())
	r.signatures(e)
}

func (r *modelReader) signatures(e protoreflect.Message) {
	list := e.Get(e.Descriptor().Fields().ByNumber(fieldSignatureDef)).List()
	for i := range list.Len() {
		entry := list.Get(i).Message()
		fields := entry.Descriptor().Fields()
		key := entry.Get(fields.ByNumber(1)).String()
		def := &for_core_protos.SignatureDef{}
		if err := convert(entry.Get(fields.ByNumber(2)).Message(), def); err != nil {
			r.faultf("signature_def", "%v", err)
			continue
		}
		if key == "" {
			r.faultf("signature_def", "has no key; write key: \"serving_default\"")
		}
		if _, twice := r.model.Signatures[key]; twice {
			r.faultf("signature_def", "key %q is given twice", shorten(key))
		}
		if len(def.GetDefaults()) > 0 {
			r.ignored = append(r.ignored, Ignored{Name: fmt.Sprintf("%s: defaults in signature_def %s of model %s", r.file, key, r.model.Name),
				Reason: "an assertion is about names, types and shapes"})
		}
		def.Defaults = nil
		if r.model.Signatures == nil {
			r.model.Signatures = make(Signatures)
		}
		at := "signature_def[" + key + "]"
		r.tensors(at+".inputs", def.GetInputs())
		r.tensors(at+".outputs", def.GetOutputs())
		r.model.Signatures[key] = def
	}
}

func (r *modelReader) tensors(at string, infos map[string]*for_core_protos.TensorInfo) {
	for _, alias := range slices.Sorted(maps.Keys(infos)) {
		info, key := infos[alias], at+"["+alias+"]"
		if info.GetCooSparse() != nil || info.GetCompositeTensor() != nil {
			r.faultf(key, "only dense tensors can be asserted")
		}
		if fault := shapeFault(info.GetTensorShape()); fault != "" {
			r.faultf(key, "%s", fault)
		}
	}
}

var nameField = regexp.MustCompile(`(?:^|[\s{<,;])name\s*:\s*(?:"([^"\\\n]*)"|'([^'\\\n]*)')`)

// nameLines finds the lines that name models, by name. Text proto keeps no places, so this only serves messages.
func nameLines(data []byte) map[string][]int {
	lines := make(map[string][]int)
	n := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		n++
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for _, m := range nameField.FindAllStringSubmatch(line, -1) {
			name := m[1] + m[2]
			lines[name] = append(lines[name], n)
		}
	}
	return lines
}

var protoPlace = regexp.MustCompile(`^proto:\s*(?:syntax error\s*)?\(line (\d+):(\d+)\):\s*`)

// parseText reads text proto into m. The fault begins as TensorFlow Serving's does and adds the place.
func parseText(file string, data []byte, m proto.Message) Faults {
	err := prototext.Unmarshal(data, m)
	if err == nil {
		return nil
	}
	msg := strings.ReplaceAll(err.Error(), "\u00a0", " ") // the library varies its spaces on purpose
	f := Fault{File: file}
	if place := protoPlace.FindStringSubmatch(msg); place != nil {
		f.Line, _ = strconv.Atoi(place[1])
		msg = fmt.Sprintf("column %s: %s", place[2], msg[len(place[0]):])
	} else if errors.Is(err, io.ErrUnexpectedEOF) || strings.HasSuffix(msg, io.ErrUnexpectedEOF.Error()) {
		f.Line = strings.Count(strings.TrimSuffix(string(data), "\n"), "\n") + 1
		msg = "the file ends in the middle of a message"
	}
	f.Msg = fmt.Sprintf("Invalid protobuf file: '%s': %s", file, strings.TrimPrefix(msg, "proto: "))
	return Faults{f}
}
