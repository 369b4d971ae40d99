// metadata.go: what a model takes, asked from the server.
package loadgen

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corepb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	serving "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// maxMetadata bounds what is read of an answer about a model.
const maxMetadata = 16 << 20

// spec names the model in gRPC's words.
func (t Target) spec(signature string) *serving.ModelSpec {
	s := &serving.ModelSpec{Name: t.Model, SignatureName: signature}
	switch {
	case t.Label != "":
		s.VersionChoice = &serving.ModelSpec_VersionLabel{VersionLabel: t.Label}
	case t.HasVersion:
		s.VersionChoice = &serving.ModelSpec_Version{Version: wrapperspb.Int64(t.Version)}
	}
	return s
}

// signatureOverGRPC asks for the inputs of a signature.
func signatureOverGRPC(ctx context.Context, conn *grpc.ClientConn, t Target, signature string) ([]inference.TensorInfo, error) {
	resp := new(serving.GetModelMetadataResponse)
	if err := conn.Invoke(ctx, metadataMethod, &serving.GetModelMetadataRequest{ModelSpec: t.spec(""), MetadataField: []string{"signature_def"}}, resp); err != nil {
		return nil, explain(t.Address, err)
	}
	defs := new(serving.SignatureDefMap)
	if err := resp.GetMetadata()["signature_def"].UnmarshalTo(defs); err != nil {
		return nil, fmt.Errorf("the metadata of model %s cannot be read: %w", t.Model, err)
	}
	def := defs.GetSignatureDef()[signature]
	if def == nil {
		return nil, noSignature(t, signature, slices.Sorted(maps.Keys(defs.GetSignatureDef())))
	}
	var infos []inference.TensorInfo
	for alias, in := range def.GetInputs() {
		infos = append(infos, declared(alias, in))
	}
	return sorted(infos), nil
}

func declared(alias string, in *corepb.TensorInfo) inference.TensorInfo {
	info := inference.TensorInfo{Alias: alias, DType: tensor.DType(in.GetDtype()).Base(), UnknownRank: in.GetTensorShape() == nil || in.GetTensorShape().GetUnknownRank()}
	for _, d := range in.GetTensorShape().GetDim() {
		info.Shape = append(info.Shape, d.GetSize())
	}
	return info
}

func sorted(infos []inference.TensorInfo) []inference.TensorInfo {
	slices.SortFunc(infos, func(a, b inference.TensorInfo) int { return strings.Compare(a.Alias, b.Alias) })
	return infos
}

func noSignature(t Target, signature string, have []string) error {
	return fmt.Errorf("model %s has no signature %q; --signature names another of %q", t.Model, signature, have)
}

// signatureOverREST asks for the inputs of a signature.
func (g *Generator) signatureOverREST(ctx context.Context) ([]inference.TensorInfo, error) {
	status, body, err := g.ask(ctx, http.MethodGet, g.target.path()+"/metadata", nil)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("model %s at %s: %s", g.target.Model, g.target.Address, httpSays(status, body))
	}
	return parseMetadata(body, g.target, g.opts.Signature)
}

// parseMetadata reads TensorFlow Serving's answer to GET .../metadata, where numbers are strings.
func parseMetadata(doc []byte, t Target, signature string) ([]inference.TensorInfo, error) {
	var meta struct {
		Metadata struct {
			Defs struct {
				Defs map[string]struct {
					Inputs map[string]struct {
						DType string `json:"dtype"`
						Shape struct {
							Dim []struct {
								Size json.RawMessage `json:"size"`
							} `json:"dim"`
							UnknownRank bool `json:"unknown_rank"`
						} `json:"tensor_shape"`
					} `json:"inputs"`
				} `json:"signature_def"`
			} `json:"signature_def"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(doc, &meta); err != nil {
		return nil, fmt.Errorf("the metadata of model %s cannot be read: %w", t.Model, err)
	}
	defs := meta.Metadata.Defs.Defs
	def, ok := defs[signature]
	if !ok {
		return nil, noSignature(t, signature, slices.Sorted(maps.Keys(defs)))
	}
	var infos []inference.TensorInfo
	for alias, in := range def.Inputs {
		d, ok := tensor.ParseDType(in.DType)
		if !ok {
			d = tensor.Invalid
		}
		info := inference.TensorInfo{Alias: alias, DType: d, UnknownRank: in.Shape.UnknownRank}
		for _, dim := range in.Shape.Dim {
			n, err := strconv.ParseInt(strings.Trim(string(dim.Size), `"`), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("the metadata of model %s cannot be read: input %q has a dimension of %.40q", t.Model, alias, dim.Size)
			}
			info.Shape = append(info.Shape, n)
		}
		infos = append(infos, info)
	}
	return sorted(infos), nil
}

// ask makes one request that is not part of the load.
func (g *Generator) ask(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	scheme := "http"
	if g.tls != nil {
		scheme = "https"
	}
	ctx, cancel := context.WithTimeout(ctx, g.opts.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, scheme+"://"+g.target.Address+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if g.opts.Token != "" {
		req.Header.Set("Authorization", "Bearer "+g.opts.Token)
	}
	if method == http.MethodPost { // as the load's own requests are
		req.Header.Set("Content-Type", "application/json")
		if d := g.opts.Deadline; d > 0 {
			req.Header.Set("Request-Timeout", seconds(d))
		}
		if p := g.opts.Priority; p != "" {
			req.Header.Set("X-Inferd-Priority", p)
		}
	}
	transport := &http.Transport{TLSClientConfig: g.tls, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		var refused *net.OpError
		if errors.As(err, &refused) {
			err = refused
		}
		return 0, nil, fmt.Errorf("nothing answers REST at %s: %w", g.target.Address, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata))
	if err != nil {
		return 0, nil, fmt.Errorf("the answer from %s broke off: %w", g.target.Address, err)
	}
	return resp.StatusCode, answer, nil
}

// seconds is a time as Request-Timeout has it.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// httpSays is the error in an answer's body, and its status.
func httpSays(status int, body []byte) string {
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &said) == nil && said.Error != "" {
		return fmt.Sprintf("%.500s (HTTP %d)", clean(said.Error), status)
	}
	return fmt.Sprintf("HTTP %d", status)
}

// within is a context for what is asked before the load.
func (g *Generator) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, max(g.opts.Timeout, time.Second))
}
