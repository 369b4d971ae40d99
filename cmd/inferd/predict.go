// predict.go: one prediction from the command line. JSON goes over REST, .npy and raw numbers over gRPC.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	framework "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	serving "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// maxInput bounds what is read from a file or from standard input.
const maxInput = 1 << 30

type predictFlags struct {
	version, label, signature string
	input, format, dtype      string
	shape                     string
	grpc, golden              string
	timeout                   time.Duration
	submitFlags
}

func predictCommand(e *env) *cobra.Command {
	var f predictFlags
	cmd := &cobra.Command{
		Use:   "predict MODEL [FILE]",
		Short: "Ask a running inferd for a prediction; the input is a file, or standard input",
		Long: "The input is JSON as TensorFlow Serving's REST takes it ({\"instances\": ...} or {\"inputs\": ...}; anything else is taken as the inputs),\n" +
			"or a NumPy file (.npy), or raw little-endian numbers with --dtype and --shape, or a picture (JPEG, PNG) or sound (WAV, or samples\n" +
			"with --format media), which is sent as it is to a model whose configuration says how its input arrives (models[].media).",
		Example: "  echo '[[1.0], [2.0]]' | inferd predict half_plus_two\n  inferd predict mobilenet photo.npy --input image\n" +
			"  inferd predict mobilenet photo.jpg\n" +
			"  inferd predict sensor readings.f32 --format raw --dtype float --shape 1,128",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("%s takes a model and at most one file; %d arguments were given", cmd.Name(), len(args))
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault // a file
			}
			return e.modelNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			file := "-"
			if len(args) == 2 {
				file = args[1]
			}
			if err := f.check(); err != nil {
				return err
			}
			data, err := e.read(file)
			if err != nil {
				return err
			}
			if f.format == "" {
				f.format = f.guess(file, data)
			}
			if err := f.submitFlags.check(f.format); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
			defer cancel()
			switch {
			case f.format == formatMedia:
				return e.predictMedia(ctx, args[0], file, data, f)
			case f.format != formatJSON && f.golden != "":
				return usagef("--golden keeps JSON; %s is %s", called(file), f.format)
			case f.format == formatJSON:
				return e.predictJSON(ctx, args[0], file, data, f)
			default:
				t, err := f.tensor(data)
				if err != nil {
					return usagef("%s: %w", called(file), err)
				}
				return e.predictTensor(ctx, args[0], t, f)
			}
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.version, "version", "", "version number (default: the highest that is available)")
	flags.StringVar(&f.label, "label", "", "version label")
	flags.StringVar(&f.signature, "signature", "", "signature (default: serving_default)")
	flags.StringVar(&f.input, "input", "", "the input that the file is, unless it is JSON (default: the only one)")
	flags.StringVar(&f.format, "format", "", "json, npy, raw or media (default: by the file)")
	flags.StringVar(&f.dtype, "dtype", "", "element type of raw input: float, int32, uint8, ...")
	flags.StringVar(&f.shape, "shape", "", "shape of raw input: 1,224,224,3")
	flags.StringVar(&f.grpc, "grpc", "", "host:port of gRPC, for .npy and raw input (default: the running inferd's)")
	flags.StringVar(&f.golden, "golden", "", "also add input and answer to this file of golden cases (a version folder's assets.extra/inferd_golden.jsonl)")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "deadline of the request")
	f.submitFlags.add(cmd)
	return cmd
}

func (e *env) read(file string) ([]byte, error) {
	in := e.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err == nil && len(data) > maxInput {
		err = fmt.Errorf("%s is larger than %d bytes", called(file), maxInput)
	}
	return data, err
}

// Values of --format, beside json.
const (
	formatNPY   = "npy"
	formatRaw   = "raw"
	formatMedia = "media"
)

// check finds wrong usage before anything is read.
func (f predictFlags) check() error {
	switch {
	case f.format != "" && f.format != formatJSON && f.format != formatNPY && f.format != formatRaw && f.format != formatMedia:
		return usagef("--format %s: write %s, %s, %s or %s", f.format, formatJSON, formatNPY, formatRaw, formatMedia)
	case f.version != "" && f.label != "":
		return usagef("--version and --label both choose a version; give one of them")
	case f.timeout <= 0:
		return usagef("--timeout %v: write a time above zero, as in 30s", f.timeout)
	}
	if f.version != "" {
		if n, err := strconv.ParseInt(f.version, 10, 64); err != nil || n < 0 {
			return usagef("--version %s is not a version number", f.version)
		}
	}
	return nil
}

// called is the file's name for messages.
func called(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}

func (f predictFlags) guess(file string, data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte(npyMagic)):
		return formatNPY
	case f.dtype == "" && isMedia(data):
		return formatMedia
	case f.dtype != "" || strings.HasSuffix(file, ".raw") || strings.HasSuffix(file, ".bin"):
		return formatRaw
	default:
		return formatJSON
	}
}

func (f predictFlags) tensor(data []byte) (*tensor.Tensor, error) {
	if f.format == formatNPY {
		return readNPY(data)
	}
	d, ok := tensor.ParseDType(f.dtype)
	if !ok || d.Size() == 0 {
		return nil, fmt.Errorf("raw input needs --dtype (float, int32, uint8, ...), not %q", f.dtype)
	}
	var shape tensor.Shape
	if f.shape == "" {
		shape = tensor.Shape{1, int64(len(data) / d.Size())}
	}
	for part := range strings.SplitSeq(f.shape, ",") {
		if f.shape == "" {
			break
		}
		n, err := strconv.ParseInt(strings.TrimSpace(part), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("--shape %s: numbers with commas, as in 1,224,224,3", f.shape)
		}
		shape = append(shape, n)
	}
	return tensor.New(d, shape, data)
}

// predictJSON sends the document as it is when it has the form of a request, else as the inputs.
func (e *env) predictJSON(ctx context.Context, model, file string, data []byte, f predictFlags) error {
	var members map[string]json.RawMessage
	if json.Unmarshal(data, &members) != nil || (members["instances"] == nil && members["inputs"] == nil) {
		members = map[string]json.RawMessage{"inputs": data}
		if !json.Valid(data) {
			return usagef("%s is neither JSON nor an .npy file; --dtype makes it plain numbers of that type", called(file))
		}
	}
	return e.predictMembers(ctx, model, members, f)
}

// predictMembers asks with the members of a request and prints the answer.
func (e *env) predictMembers(ctx context.Context, model string, members map[string]json.RawMessage, f predictFlags) error {
	if f.signature != "" {
		name, err := json.Marshal(f.signature)
		if err != nil {
			return err
		}
		members["signature_name"] = name
	}
	body, err := json.Marshal(members)
	if err != nil {
		return err
	}
	path := "/v1/models/" + url.PathEscape(model)
	switch {
	case f.version != "":
		path += "/versions/" + url.PathEscape(f.version)
	case f.label != "":
		path += "/labels/" + url.PathEscape(f.label)
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	if f.submit {
		return e.queued(ctx, c, path, body, f.submitFlags)
	}
	status, answer, err := c.Do(ctx, http.MethodPost, path+":predict", body)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return refusedJSON(status, answer)
	}
	if f.golden != "" {
		if err := appendGolden(f.golden, members, answer); err != nil {
			return err
		}
	}
	return e.printAnswer(answer)
}

// predictTensor sends one tensor as tensor_content.
func (e *env) predictTensor(ctx context.Context, model string, t *tensor.Tensor, f predictFlags) error {
	address := f.grpc
	if address == "" {
		c, err := e.client()
		if err != nil {
			return err
		}
		s, err := c.Status(ctx)
		if err != nil {
			return fmt.Errorf("%w (--grpc host:port needs no control socket)", err)
		}
		if address = s.GRPC; address == "" {
			return errors.New(".npy and raw input go over gRPC, which is off in this inferd; send JSON, or set listen.grpc")
		}
	}
	options, err := e.secure.dialOptions(false)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(address, append(options, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxInput), grpc.MaxCallSendMsgSize(maxInput)))...)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	spec := &serving.ModelSpec{Name: model, SignatureName: f.signature}
	switch {
	case f.version != "":
		n, err := strconv.ParseInt(f.version, 10, 64)
		if err != nil {
			return usageError{err} // check has seen it
		}
		spec.VersionChoice = &serving.ModelSpec_Version{Version: wrapperspb.Int64(n)}
	case f.label != "":
		spec.VersionChoice = &serving.ModelSpec_VersionLabel{VersionLabel: f.label}
	}
	input := f.input
	if input == "" {
		if input, err = onlyInput(ctx, conn, spec); err != nil {
			return err
		}
	}
	shape := &shapepb.TensorShapeProto{}
	for _, d := range t.Shape {
		shape.Dim = append(shape.Dim, &shapepb.TensorShapeProto_Dim{Size: d})
	}
	in := &framework.TensorProto{Dtype: typespb.DataType(t.DType), TensorShape: shape, TensorContent: t.Data, StringVal: t.Strings}
	out := new(serving.PredictResponse)
	err = conn.Invoke(ctx, "/tensorflow.serving.PredictionService/Predict",
		&serving.PredictRequest{ModelSpec: spec, Inputs: map[string]*framework.TensorProto{input: in}}, out)
	if err != nil {
		return refusal(err)
	}
	values := make(map[string]any)
	for name, p := range out.GetOutputs() {
		values[name] = nested(p)
	}
	return e.printOutputs(values)
}

// onlyInput asks the model's metadata for the name of its one input.
func onlyInput(ctx context.Context, conn *grpc.ClientConn, spec *serving.ModelSpec) (string, error) {
	meta := new(serving.GetModelMetadataResponse)
	err := conn.Invoke(ctx, "/tensorflow.serving.PredictionService/GetModelMetadata",
		&serving.GetModelMetadataRequest{ModelSpec: spec, MetadataField: []string{"signature_def"}}, meta)
	if err != nil {
		return "", refusal(err)
	}
	defs := new(serving.SignatureDefMap)
	if err := meta.GetMetadata()["signature_def"].UnmarshalTo(defs); err != nil {
		return "", fmt.Errorf("metadata: %w", err)
	}
	key := spec.GetSignatureName()
	if key == "" {
		key = "serving_default"
	}
	def, ok := defs.GetSignatureDef()[key]
	if !ok {
		return "", usagef("model %s has no signature %q; --signature names another of %v", spec.GetName(), key, slices.Sorted(maps.Keys(defs.GetSignatureDef())))
	}
	names := slices.Sorted(maps.Keys(def.GetInputs()))
	if len(names) != 1 {
		return "", usagef("signature %q has the inputs %v; --input says which one the file is", key, names)
	}
	return names[0], nil
}

// refusal is a gRPC error in the words in which REST would have been refused.
func refusal(err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	return fmt.Errorf("%s (%s)", st.Message(), inference.Code(st.Code()))
}
