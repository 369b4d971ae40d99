// grpc.go: TensorFlow Serving's gRPC, on the port, the unix socket and the HTTP port; as grpc-web; and jobs over gRPC.
package conform

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	gproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inferd/inferd/appliance/api/coding"
	"github.com/inferd/inferd/appliance/api/rpc/jobspb"
	"github.com/inferd/inferd/inference"
)

func (s *Server) grpcDoors() []Door {
	door := func(name string, conn *grpc.ClientConn, opts ...grpc.CallOption) Door {
		return Door{Name: name, Kind: GRPC, Local: conn == s.GRPCSocket, Ask: func(ctx context.Context, r *Request) (*Answer, error) {
			if r.Deadline != 0 {
				return r.patientPredict(ctx, conn)
			}
			message, err := r.message()
			if err != nil {
				return nil, err
			}
			var got []byte
			if err := conn.Invoke(r.metadata(ctx), r.rpc(), message, &got, append(opts, grpc.ForceCodecV2(spoiling{r}))...); err != nil {
				return statusAnswer(status.Convert(err)), nil
			}
			return r.answer(got)
		}}
	}
	return []Door{door("gRPC", s.GRPC), door("gRPC, zstd", s.GRPC, grpc.UseCompressor(coding.Zstd)), door("gRPC, gzip", s.GRPC, grpc.UseCompressor(coding.Gzip)),
		door("gRPC on a unix socket", s.GRPCSocket), door("gRPC on the HTTP port", s.GRPCOnHTTP)}
}

func (r *Request) metadata(ctx context.Context) context.Context {
	if r.Token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+r.Token)
	}
	if r.Priority != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "inferd-priority", r.Priority)
	}
	return ctx
}

// proto is the request as TensorFlow Serving has it.
func (r *Request) proto() *pb.PredictRequest {
	p := &pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: r.Model, SignatureName: r.Signature}, Inputs: map[string]*tensorpb.TensorProto{}, OutputFilter: r.Outputs}
	switch {
	case r.Version != 0:
		p.ModelSpec.VersionChoice = &pb.ModelSpec_Version{Version: wrapperspb.Int64(r.Version)}
	case r.Label != "":
		p.ModelSpec.VersionChoice = &pb.ModelSpec_VersionLabel{VersionLabel: r.Label}
	}
	for _, in := range r.Inputs {
		p.Inputs[in.Name] = proto(in.Tensor)
	}
	return p
}

// spoilMessage makes a message as long, with a field that nobody knows, and as bad as the request wants it.
func (r *Request) spoilMessage(b []byte) []byte {
	if r.Garbage {
		return b[:len(b)-1]
	}
	if r.Large > len(b) {
		b = append(binary.AppendUvarint(b, 1000<<3|2), binary.AppendUvarint(nil, uint64(r.Large))...)
		b = append(b, make([]byte, r.Large)...)
	}
	return b
}

func protoAnswer(got *pb.PredictResponse) *Answer {
	a := &Answer{Outputs: map[string]string{}}
	for name, t := range got.Outputs {
		a.Outputs[name] = protoText(t)
	}
	return a
}

func statusAnswer(st *status.Status) *Answer {
	a := &Answer{Code: inference.Code(st.Code()), Text: st.Message()}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			a.Reason = info.Reason
		}
	}
	return a
}

func (s *Server) webDoors() []Door {
	door := func(name string, c *http.Client, text bool) Door {
		return Door{Name: name, Kind: GRPC, Ask: func(ctx context.Context, r *Request) (*Answer, error) { return s.web(ctx, c, text, r) }}
	}
	return []Door{door("grpc-web", s.Client, false), door("grpc-web as text", s.Client, true), door("grpc-web over HTTP/2", s.HTTP2, false)}
}

func (s *Server) web(ctx context.Context, c *http.Client, text bool, r *Request) (*Answer, error) {
	message, err := r.message()
	if err != nil {
		return nil, err
	}
	message = r.spoilMessage(message)
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	headers := map[string]string{"Content-Type": "application/grpc-web+proto"}
	if text {
		headers["Content-Type"] = "application/grpc-web-text"
		body = []byte(base64.StdEncoding.EncodeToString(body))
	}
	if r.Token != "" {
		headers["Authorization"] = "Bearer " + r.Token
	}
	if r.Priority != "" {
		headers["Inferd-Priority"] = r.Priority
	}
	if r.Deadline != 0 {
		headers["Grpc-Timeout"] = grpcTimeout(r.Deadline)
	}
	resp, got, err := s.do(ctx, c, "", http.MethodPost, r.rpc(), body, headers)
	if err != nil {
		return nil, err
	}
	if resp.status != http.StatusOK {
		if !bytes.HasPrefix(got, []byte("{")) {
			return withoutStatus(resp.status, got)
		}
		return failure(resp, got)
	}
	if text {
		if got, err = unpad(got); err != nil {
			return nil, err
		}
	}
	var answer *Answer
	for len(got) > 0 {
		if len(got) < 5 || len(got)-5 < int(binary.BigEndian.Uint32(got[1:])) {
			return nil, errors.New("a frame is cut short")
		}
		flags, end := got[0], 5+int(binary.BigEndian.Uint32(got[1:]))
		if flags == 0 {
			if answer, err = r.answer(got[5:end]); err != nil {
				return nil, err
			}
		} else if st, err := trailers(got[5:end]); err != nil || st.Code() != codes.OK {
			return statusAnswer(st), err
		}
		got = got[end:]
	}
	if answer == nil {
		return nil, errors.New("neither an answer nor an error")
	}
	return answer, nil
}

// unpad is base64 whose parts are padded each for itself.
func unpad(b []byte) (out []byte, err error) {
	for ; len(b) >= 4; b = b[4:] {
		part, err := base64.StdEncoding.DecodeString(string(b[:4]))
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	return out, nil
}

func trailers(b []byte) (*status.Status, error) {
	var code int
	var message string
	for line := range bytes.SplitSeq(bytes.TrimSpace(b), []byte("\r\n")) {
		name, value, _ := strings.Cut(string(line), ": ")
		var err error
		switch name {
		case "grpc-status":
			code, err = strconv.Atoi(value)
		case "grpc-message":
			message, err = url.PathUnescape(value)
		case "grpc-status-details-bin":
			var b []byte
			if b, err = base64.RawStdEncoding.DecodeString(value); err == nil {
				p := new(spb.Status)
				if err = gproto.Unmarshal(b, p); err == nil {
					return status.FromProto(p), nil
				}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("trailer %s: %w", line, err)
		}
	}
	return status.New(codes.Code(code), message), nil
}

// grpcJob submits, waits, and takes the result.
func (s *Server) grpcJob(ctx context.Context, r *Request) (*Answer, error) {
	ctx = r.metadata(ctx)
	b, err := gproto.Marshal(r.proto())
	if err != nil {
		return nil, err
	}
	job := new(jobspb.Job)
	if err := s.GRPC.Invoke(ctx, "/inferd.v1.Jobs/Submit", &jobspb.SubmitRequest{Predict: r.spoilMessage(b), Priority: r.Priority}, job); err != nil {
		return statusAnswer(status.Convert(err)), nil
	}
	for range maxTries {
		if err := s.GRPC.Invoke(ctx, "/inferd.v1.Jobs/Get", &jobspb.GetRequest{Id: job.Id, WaitMs: 10000}, job); err != nil {
			return nil, err
		}
		if job.State != "queued" && job.State != "leased" {
			break
		}
	}
	result := new(jobspb.ResultResponse)
	if err := s.GRPC.Invoke(ctx, "/inferd.v1.Jobs/Result", &jobspb.JobRequest{Id: job.Id}, result); err != nil {
		a := statusAnswer(status.Convert(err))
		a.Reason = job.Reason
		return a, nil
	}
	got := new(pb.PredictResponse)
	if err := gproto.Unmarshal(result.GetResponse(), got); err != nil {
		return nil, err
	}
	return protoAnswer(got), nil
}
