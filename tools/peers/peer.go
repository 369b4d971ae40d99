// peer.go: the servers, and how each is started with one model.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// peer is one server in one configuration.
type peer struct {
	name  string
	env   string // its folder below build/peers, without "env-"; empty when it needs none
	wires []wire
	at    string // host:port of a server that the user started
	grpc  string // the same, for gRPC
	start func(b *bench, m *model, work string, ports [3]int) (env, argv []string, err error)
}

func (b *bench) peers() []peer {
	all := []peer{
		{name: "inferd", wires: []wire{tfsJSON, tfsGRPC, oipJSON, oipBinary, oipGRPC}, start: startInferd},
		{name: "Triton", env: "triton", wires: []wire{oipJSON, oipBinary, oipGRPC}, start: startTriton(tritonAsItComes)},
		{name: "Triton tuned", env: "triton", wires: []wire{oipJSON, oipBinary, oipGRPC}, start: func(b *bench, m *model, work string, ports [3]int) ([]string, []string, error) {
			return startTriton(b.tuned(m))(b, m, work, ports)
		}},
		{name: "MLServer", env: "mlserver", wires: []wire{oipJSON, oipGRPC}, start: startMLServer},
		{name: "FastAPI", env: "tensorflow", wires: []wire{tfsJSON}, start: startFastAPI},
	}
	for _, own := range []struct{ name, variable string }{{"TensorFlow Serving", "TFS"}, {"OpenVINO Model Server", "OVMS"}} {
		if at := os.Getenv(own.variable); at != "" {
			p := peer{name: own.name, at: at, grpc: os.Getenv(own.variable + "_GRPC"), wires: []wire{tfsJSON}}
			if p.grpc != "" {
				p.wires = append(p.wires, tfsGRPC)
			}
			all = append(all, p)
		}
	}
	return all
}

// absent are the servers that could have been measured and were not, each with what to do.
func absent() (all []string) {
	if os.Getenv("TFS") == "" {
		all = append(all, "TensorFlow Serving: not measured (its binary is in no package registry; start one with the models of build/peers/models and give TFS=host:port, and TFS_GRPC=host:port)")
	}
	if os.Getenv("OVMS") == "" {
		all = append(all, "OpenVINO Model Server: not measured (likewise, OVMS=host:port)")
	}
	return all
}

// state is where inferd remembers how it runs the model best, which it measures when it meets the model for the first time. It is kept for the
// run, so that what is measured is not the first start.
func (b *bench) state(m *model) string { return filepath.Join(b.home, "state", filepath.Base(m.home)) }

func startInferd(b *bench, m *model, work string, ports [3]int) ([]string, []string, error) {
	return []string{"TF_CPP_MIN_LOG_LEVEL=2"}, append([]string{b.inferd, "serve", "--models-dir", m.home, "--runtime", b.runtime,
		"--state-dir", b.state(m), "--listen.control", filepath.Join(work, "control.sock"),
		"--http", "127.0.0.1:" + strconv.Itoa(ports[0]), "--grpc", "127.0.0.1:" + strconv.Itoa(ports[1]),
		"--log-level", "warn", "--updater.settle_time", "200ms"}, b.flags...), nil
}

// pythonEnv is what every Python peer is started with.
func (b *bench) pythonEnv(m *model, port int) []string {
	return []string{"MODEL_PATH=" + m.dir(), "PORT=" + strconv.Itoa(port), "PEERS_PYTHON=" + b.python, "PYTHONPATH=" + b.python, "PYTHONUNBUFFERED=1",
		"TF_CPP_MIN_LOG_LEVEL=2", "CUDA_VISIBLE_DEVICES=-1"}
}

func (b *bench) venv(name, tool string) string {
	return filepath.Join(b.home, "env-"+name, "bin", tool)
}

func startFastAPI(b *bench, m *model, _ string, ports [3]int) ([]string, []string, error) {
	return b.pythonEnv(m, ports[0]), []string{b.venv("tensorflow", "python"), filepath.Join(b.python, "fastapi_app.py")}, nil
}

func startMLServer(b *bench, m *model, work string, ports [3]int) ([]string, []string, error) {
	settings := fmt.Sprintf(`{"host": "127.0.0.1", "http_port": %d, "grpc_port": %d, "metrics_port": %d, "parallel_workers": 0, "debug": false, "logging_settings": null,
 "grpc_max_message_length": 67108864, "environments_dir": %q}`, ports[0], ports[1], ports[2], filepath.Join(work, "envs"))
	if err := os.WriteFile(filepath.Join(work, "settings.json"), []byte(settings), 0o600); err != nil {
		return nil, nil, err
	}
	// As many rows as MLServer may put into one run, and how long it may wait for them: its adaptive batching.
	own := fmt.Sprintf(`{"name": %q, "implementation": "mlserver_runtime.TensorFlow", "max_batch_size": 32, "max_batch_time": 0.001}`, m.Name)
	if m.Input.Datatype == bytesType {
		own = fmt.Sprintf(`{"name": %q, "implementation": "mlserver_runtime.TensorFlow"}`, m.Name) // its batching does not know strings
	}
	if err := os.WriteFile(filepath.Join(work, "model-settings.json"), []byte(own), 0o600); err != nil {
		return nil, nil, err
	}
	return b.pythonEnv(m, ports[0]), []string{b.venv("mlserver", "python"), b.venv("mlserver", "mlserver"), "start", work}, nil
}

// tritonSettings is what can be tuned of Triton with TensorFlow in its Python backend.
type tritonSettings struct {
	Instances, Intra, Batch int
	WaitMicros              int
	Session                 bool // the graph in a session, not through tf.function
}

func (t tritonSettings) String() string {
	s := fmt.Sprintf("%d instances, %d intra-op threads, batches up to %d, wait %d us", t.Instances, t.Intra, t.Batch, t.WaitMicros)
	if t.Session {
		s += ", in a session"
	}
	return s
}

// tritonAsItComes leaves TensorFlow's threads to TensorFlow, and batches, since without that nobody would use it.
var tritonAsItComes = tritonSettings{Instances: 1, Batch: 32, WaitMicros: 1000}

func startTriton(t tritonSettings) func(b *bench, m *model, work string, ports [3]int) (env, argv []string, err error) {
	return func(b *bench, m *model, work string, ports [3]int) ([]string, []string, error) {
		site, err := filepath.Glob(filepath.Join(b.home, "env-triton", "lib", "python*", "site-packages"))
		if err != nil || len(site) != 1 {
			return nil, nil, fmt.Errorf("env-triton has %d site-packages", len(site))
		}
		home := filepath.Join(site[0], "pytriton", "tritonserver")
		version := strings.TrimPrefix(filepath.Base(filepath.Dir(site[0])), "python")
		backend, repository := filepath.Join(work, "backends", "python"), filepath.Join(work, "repository", m.Name)
		for _, d := range []string{backend, filepath.Join(repository, "1")} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return nil, nil, err
			}
		}
		parts, err := filepath.Glob(filepath.Join(home, "backends", "python", "*"))
		if err != nil {
			return nil, nil, err
		}
		parts = append(parts, filepath.Join(home, "python_backend_stubs", version, "triton_python_backend_stub"))
		for _, p := range parts {
			if err := os.Symlink(p, filepath.Join(backend, filepath.Base(p))); err != nil {
				return nil, nil, err
			}
		}
		if err := os.Symlink(filepath.Join(b.python, "triton_model.py"), filepath.Join(repository, "1", "model.py")); err != nil {
			return nil, nil, err
		}
		if err := os.WriteFile(filepath.Join(repository, "config.pbtxt"), []byte(t.config(m)), 0o600); err != nil {
			return nil, nil, err
		}
		env := b.pythonEnv(m, ports[0])
		env = append(env, "LD_LIBRARY_PATH="+filepath.Join(site[0], "nvidia_pytriton.libs"), "PYTHONPATH="+site[0],
			"PATH="+filepath.Join(b.home, "env-triton", "bin")+":"+os.Getenv("PATH"))
		if t.Intra > 0 {
			env = append(env, fmt.Sprintf("TF_INTRA=%d", t.Intra), "TF_INTER=1")
		}
		if t.Session {
			env = append(env, "TF_CALL=session")
		}
		return env, []string{filepath.Join(home, "bin", "tritonserver"), "--model-repository", filepath.Join(work, "repository"),
			"--backend-directory", filepath.Join(work, "backends"), "--http-address", "127.0.0.1", "--http-port", strconv.Itoa(ports[0]),
			"--grpc-address", "127.0.0.1", "--grpc-port", strconv.Itoa(ports[1]), "--metrics-port", strconv.Itoa(ports[2])}, nil
	}
}

// config is Triton's description of the model.
func (t tritonSettings) config(m *model) string {
	dims := func(c column) string {
		if len(c.Shape) == 0 {
			return "1"
		}
		return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(c.Shape)), ", "), "[]")
	}
	tensor := func(c column) string {
		kind, shape := "TYPE_FP32", ""
		if c.Datatype == bytesType {
			kind = "TYPE_STRING"
		}
		if len(c.Shape) == 0 {
			shape = " reshape { shape: [ ] }" // a row is one string, where the protocol has a dimension for it
		}
		return fmt.Sprintf("{ name: %q data_type: %s dims: [ %s ]%s }", c.Name, kind, dims(c), shape)
	}
	var outputs []string
	for _, o := range m.Outputs {
		outputs = append(outputs, tensor(o))
	}
	return fmt.Sprintf("backend: \"python\"\nmax_batch_size: %d\ninput [ %s ]\noutput [ %s ]\ninstance_group [ { kind: KIND_CPU count: %d } ]\ndynamic_batching { max_queue_delay_microseconds: %d }\n",
		t.Batch, tensor(m.Input), strings.Join(outputs, ", "), t.Instances, t.WaitMicros)
}
