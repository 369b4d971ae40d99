// status.go: model status, metadata and the list of models as JSON, in the layout of protobuf's printer (one space per level).
package rest

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	types "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/inferd/inferd/inference"
)

// printer appends indented JSON. A member or element is begun by key or element, which write the comma before it.
type printer struct {
	out   []byte
	depth int
	fresh bool // nothing has been written in the innermost object or list
}

func (p *printer) open(c byte) {
	p.out = append(p.out, c)
	p.depth++
	p.fresh = true
}

func (p *printer) close(c byte) {
	p.depth--
	if !p.fresh {
		p.newline()
	}
	p.fresh = false
	p.out = append(p.out, c)
}

func (p *printer) newline() {
	p.out = append(p.out, '\n')
	for range p.depth {
		p.out = append(p.out, ' ')
	}
}

func (p *printer) element() {
	if !p.fresh {
		p.out = append(p.out, ',')
	}
	p.fresh = false
	p.newline()
}

func (p *printer) key(name string) {
	p.element()
	p.text(name)
	p.out = append(p.out, ": "...)
}

// text writes a string as protobuf's printer does, which escapes < and > too.
func (p *printer) text(s string) {
	quoted := appendString(nil, []byte(s), true)
	quoted = bytes.ReplaceAll(quoted, []byte("<"), []byte(`\u003c`))
	p.out = append(p.out, bytes.ReplaceAll(quoted, []byte(">"), []byte(`\u003e`))...)
}

func (p *printer) member(name, value string) {
	p.key(name)
	p.text(value)
}

func (p *printer) version(v *inference.VersionStatus) {
	p.element()
	p.open('{')
	p.member("version", strconv.FormatInt(v.Version, 10))
	p.member("state", v.State.String())
	p.key("status")
	p.open('{')
	p.member("error_code", v.Code.String())
	p.member("error_message", v.Message)
	p.close('}')
	p.close('}')
}

// appendStatus is the answer to GET /v1/models/M.
func appendStatus(out []byte, versions []inference.VersionStatus) []byte {
	p := printer{out: out}
	p.open('{')
	p.key("model_version_status")
	p.open('[')
	for i := range versions {
		p.version(&versions[i])
	}
	p.close(']')
	p.close('}')
	return append(p.out, '\n')
}

// modelStatus is one model of the list.
type modelStatus struct {
	name      string
	available bool
	versions  []inference.VersionStatus // highest first
}

// appendModels is the answer to GET /v1/models. A model's state is AVAILABLE when one of its versions answers, else that of its
// highest version, else UNKNOWN.
func appendModels(out []byte, models []modelStatus) []byte {
	p := printer{out: out}
	p.open('{')
	p.key("models")
	p.open('[')
	for i := range models {
		m := &models[i]
		state := inference.StateUnknown
		switch {
		case m.available:
			state = inference.StateAvailable
		case len(m.versions) > 0:
			state = m.versions[0].State
		}
		p.element()
		p.open('{')
		p.member("name", m.name)
		p.member("state", state.String())
		p.key("versions")
		p.open('[')
		for k := range m.versions {
			p.version(&m.versions[k])
		}
		p.close(']')
		p.close('}')
	}
	p.close(']')
	p.close('}')
	return append(p.out, '\n')
}

// appendMetadata is the answer to GET /v1/models/M/metadata. TensorFlow Serving puts two printed messages together, line breaks and all.
func appendMetadata(out []byte, v *inference.Version) []byte {
	p := printer{out: append(out, "{\n\"model_spec\":"...)}
	p.open('{')
	p.member("name", v.Model)
	p.member("signature_name", "")
	p.member("version", strconv.FormatInt(v.Number, 10))
	p.close('}')
	p.out = append(p.out, "\n,\n\"metadata\": {\"signature_def\": "...)
	p.open('{')
	p.key("signature_def")
	p.open('{')
	for _, key := range slices.Sorted(maps.Keys(v.Defs)) {
		def := v.Defs[key]
		p.key(key)
		p.open('{')
		p.infos("inputs", def.GetInputs())
		p.infos("outputs", def.GetOutputs())
		p.member("method_name", def.GetMethodName())
		p.key("defaults") // TensorFlow Serving has not shown them since 2.20
		p.open('{')
		p.close('}')
		p.close('}')
	}
	p.close('}')
	p.close('}')
	return append(p.media(v), "\n}\n}\n"...)
}

// media appends a member that TensorFlow Serving does not have, where an input takes files: by signature and input, what they are to be.
func (p *printer) media(v *inference.Version) []byte {
	all := make(map[string]map[string]any)
	for key, sig := range v.Signatures {
		for i := range sig.Inputs {
			if in := &sig.Inputs[i]; in.Media != nil {
				if all[key] == nil {
					all[key] = make(map[string]any)
				}
				all[key][in.Alias] = in.Media.Describe()
			}
		}
	}
	if len(all) == 0 {
		return p.out
	}
	doc, err := json.MarshalIndent(all, "", " ")
	if err != nil { // numbers and words
		return p.out
	}
	return append(append(p.out, ",\n\"media\": "...), doc...)
}

func (p *printer) infos(name string, infos map[string]*pb.TensorInfo) {
	p.key(name)
	p.open('{')
	for _, alias := range slices.Sorted(maps.Keys(infos)) {
		p.key(alias)
		p.info(infos[alias])
	}
	p.close('}')
}

func (p *printer) info(info *pb.TensorInfo) {
	p.open('{')
	p.key("dtype")
	if d := info.GetDtype(); types.DataType_name[int32(d)] != "" {
		p.text(d.String())
	} else {
		p.out = strconv.AppendInt(p.out, int64(d), 10)
	}
	if shape := info.GetTensorShape(); shape != nil {
		p.key("tensor_shape")
		p.open('{')
		p.key("dim")
		p.open('[')
		for _, d := range shape.GetDim() {
			p.element()
			p.open('{')
			p.member("size", strconv.FormatInt(d.GetSize(), 10))
			p.member("name", d.GetName())
			p.close('}')
		}
		p.close(']')
		p.key("unknown_rank")
		p.out = strconv.AppendBool(p.out, shape.GetUnknownRank())
		p.close('}')
	}
	switch e := info.GetEncoding().(type) {
	case *pb.TensorInfo_Name:
		p.member("name", e.Name)
	case *pb.TensorInfo_CooSparse_:
		p.key("coo_sparse")
		p.open('{')
		p.member("values_tensor_name", e.CooSparse.GetValuesTensorName())
		p.member("indices_tensor_name", e.CooSparse.GetIndicesTensorName())
		p.member("dense_shape_tensor_name", e.CooSparse.GetDenseShapeTensorName())
		p.close('}')
	case *pb.TensorInfo_CompositeTensor_:
		p.key("composite_tensor")
		p.open('{')
		if spec := e.CompositeTensor.GetTypeSpec(); spec != nil {
			p.key("type_spec")
			p.out = append(p.out, typeSpec(spec, p.depth)...)
		}
		p.key("components")
		p.open('[')
		for _, c := range e.CompositeTensor.GetComponents() {
			p.element()
			p.info(c)
		}
		p.close(']')
		p.close('}')
	}
	p.close('}')
}

// typeSpec prints a message that no one reads, with Go's protobuf printer: its order of members is the declared one too.
func typeSpec(spec *pb.TypeSpecProto, depth int) []byte {
	compact, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(spec)
	if err != nil {
		return []byte("{}")
	}
	var b bytes.Buffer
	if err := json.Indent(&b, compact, string(bytes.Repeat([]byte(" "), depth)), " "); err != nil {
		return compact
	}
	return b.Bytes()
}
