// pod_test.go: the manifests' pods, run by runc as a kubelet would: the image, the command, the volumes, the probes and the hook as they are written.
package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// manifest is what the test needs of a document; tools/schemas decodes all of it.
type manifest struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Template struct {
			Spec struct {
				TerminationGracePeriodSeconds int `yaml:"terminationGracePeriodSeconds"`
				Containers                    []container
				Volumes                       []struct {
					Name                  string
					ConfigMap             *struct{ Name string } `yaml:"configMap"`
					PersistentVolumeClaim *struct{}              `yaml:"persistentVolumeClaim"`
					EmptyDir              *struct{}              `yaml:"emptyDir"`
				}
			}
		}
	}
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

type container struct {
	Command, Args []string
	Ports         []struct {
		Name          string
		ContainerPort string `yaml:"containerPort"`
	}
	StartupProbe   *probe `yaml:"startupProbe"`
	LivenessProbe  *probe `yaml:"livenessProbe"`
	ReadinessProbe *probe `yaml:"readinessProbe"`
	Lifecycle      struct {
		PreStop struct{ Exec struct{ Command []string } } `yaml:"preStop"`
	}
	SecurityContext struct {
		ReadOnlyRootFilesystem bool `yaml:"readOnlyRootFilesystem"`
	} `yaml:"securityContext"`
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		SubPath   string `yaml:"subPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

// manifests are the documents of a file.
func manifests(t *testing.T, file string) (all []manifest) {
	t.Helper()
	for doc := range strings.SplitSeq("\n"+read(t, file), "\n---\n") {
		var m manifest
		if err := yaml.Unmarshal([]byte(doc), &m); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, m)
	}
	return all
}

// mount is one of OCI's runtime specification.
type mount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Options     []string `json:"options,omitempty"`
}

// pod is one running container.
type pod struct {
	t     *testing.T
	id    string
	pid   int
	ended chan error
	http  *http.Client // asks in the container's own network
}

// runPod starts a container of the image with TensorFlow in its place. Its network has nothing but the loopback.
func runPod(t *testing.T, root string, c imageConfig, args, env []string, readonly bool, mounts []mount) *pod {
	t.Helper()
	runc := tool(t, "runc", "runc")
	uid, _, _ := strings.Cut(c.User, ":")
	number, err := strconv.Atoi(uid)
	if err != nil || number == 0 {
		t.Fatalf("the image's user is %q, which is no number, or root", c.User)
	}
	mounts = append([]mount{
		{"/proc", "proc", "proc", nil}, {"/dev", "tmpfs", "tmpfs", []string{"nosuid", "mode=755"}}, {"/sys", "sysfs", "sysfs", []string{"ro"}},
		{"/usr/lib/inferd/runtime", "bind", runtime(t), []string{"bind", "ro"}},
	}, mounts...)
	spec := map[string]any{
		"ociVersion": "1.0.2", "root": map[string]any{"path": root, "readonly": readonly}, "mounts": mounts, "hostname": "pod",
		"process": map[string]any{"args": args, "env": append(append([]string{}, c.Env...), env...), "cwd": c.WorkingDir, "noNewPrivileges": true,
			"user": map[string]any{"uid": number, "gid": number}, "capabilities": map[string]any{}},
		"linux": map[string]any{"namespaces": []map[string]string{{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}},
	}
	dir := short(t)
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "config.json"), string(text))
	p := &pod{t: t, id: "inferd-" + filepath.Base(dir), ended: make(chan error, 1)}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(runc, "run", "--bundle", dir, p.id)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = log.Close() // the child has its own
	go func() { p.ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = exec.Command(runc, "delete", "--force", p.id).Run() // it is gone where all went well
		if t.Failed() {
			said := read(t, log.Name())
			t.Logf("the container said:\n%s", said[max(0, len(said)-4000):])
		}
	})
	until(t, "a running container", func() error {
		select {
		case err := <-p.ended:
			said := read(t, log.Name())
			if strings.Contains(said, "operation not permitted") || strings.Contains(said, "permission denied") {
				t.Skipf("runc may not make containers here: %s", said)
			}
			t.Fatalf("it ended: %v\n%s", err, said)
		default:
		}
		out, err := exec.Command(runc, "state", p.id).Output()
		if err != nil {
			return err
		}
		var state struct {
			PID    int
			Status string
		}
		if err := json.Unmarshal(out, &state); err != nil {
			return fmt.Errorf("runc state says %s: %w", out, err)
		}
		if state.Status != "running" {
			return fmt.Errorf("it is %s", state.Status)
		}
		p.pid = state.PID
		return nil
	})
	p.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return p.dial(ctx, address) }}}
	t.Cleanup(p.http.CloseIdleConnections)
	return p
}

// dial opens a connection from inside the container's network.
func (p *pod) dial(ctx context.Context, address string) (net.Conn, error) {
	type dialled struct {
		c   net.Conn
		err error
	}
	out := make(chan dialled, 1)
	go func() {
		goruntime.LockOSThread() // and never unlocked: the thread ends with the goroutine, for it is in another network
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.pid))
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			_ = f.Close() // only its descriptor was wanted
		}
		var c net.Conn
		if err == nil {
			c, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		}
		out <- dialled{c, err}
	}()
	d := <-out
	return d.c, d.err
}

// exec runs a command in the container.
func (p *pod) exec(args ...string) (string, error) {
	out, err := exec.Command("runc", append([]string{"exec", p.id}, args...)...).CombinedOutput()
	return string(out), err
}

// stop sends SIGTERM and wants the exit code 0 in time.
func (p *pod) stop(seconds int) {
	p.t.Helper()
	if out, err := exec.Command("runc", "kill", p.id, "TERM").CombinedOutput(); err != nil {
		p.t.Fatalf("runc kill: %v\n%s", err, out)
	}
	select {
	case err := <-p.ended:
		if err != nil {
			p.t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Duration(seconds) * time.Second):
		p.t.Errorf("it did not end in %d s", seconds)
	}
}

// volumes are the mounts of a manifest's container, each with what is in it.
func volumes(t *testing.T, all []manifest, m manifest, models string) (mounts []mount) {
	t.Helper()
	at := map[string]string{}
	for _, v := range m.Spec.Template.Spec.Volumes {
		dir := filepath.Join(short(t), v.Name)
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil { // as kubelet makes an emptyDir
			t.Fatal(err)
		}
		switch {
		case v.PersistentVolumeClaim != nil:
			dir = models
		case v.ConfigMap != nil:
			i := slices.IndexFunc(all, func(o manifest) bool { return o.Kind == "ConfigMap" && o.Metadata.Name == v.ConfigMap.Name })
			if i < 0 {
				t.Fatalf("there is no ConfigMap %q", v.ConfigMap.Name)
			}
			for name, text := range all[i].Data {
				write(t, filepath.Join(dir, name), text)
			}
		}
		at[v.Name] = dir
	}
	for _, v := range m.Spec.Template.Spec.Containers[0].VolumeMounts {
		options := []string{"bind"}
		if v.ReadOnly {
			options = append(options, "ro")
		}
		mounts = append(mounts, mount{v.MountPath, "bind", filepath.Join(at[v.Name], v.SubPath), options})
	}
	return mounts
}

func (p *pod) probe(c container, of *probe) (int, string, error) {
	port := of.HTTPGet.Port
	for _, named := range c.Ports {
		if named.Name == port {
			port = named.ContainerPort
		}
	}
	return get(p.http, "http://127.0.0.1:"+port+of.HTTPGet.Path)
}

// succeeds waits until a probe does.
func (p *pod) succeeds(c container, what string, of *probe) {
	p.t.Helper()
	until(p.t, "the "+what+" probe", func() error {
		code, text, err := p.probe(c, of)
		if err == nil && (code < 200 || code >= 400) { // as kubelet takes it
			err = fmt.Errorf("%d %s", code, text)
		}
		return err
	})
}

func (p *pod) answers(model string) {
	p.t.Helper()
	if err := half(p.t.Context(), p.http, "http://127.0.0.1:8501", model); err != nil {
		p.t.Errorf("REST: %v", err)
	}
	conn, err := grpc.NewClient("passthrough:///127.0.0.1:8500", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(p.dial))
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	if err := halfGRPC(conn); err != nil {
		p.t.Errorf("gRPC: %v", err)
	}
}

func deploymentOf(t *testing.T, all []manifest) (m manifest, c container) {
	t.Helper()
	i := slices.IndexFunc(all, func(o manifest) bool { return o.Kind == "Deployment" })
	if i < 0 {
		t.Fatal("there is no Deployment")
	}
	return all[i], all[i].Spec.Template.Spec.Containers[0]
}

// TestPodOfInferd: from the first probe to the end of a drained pod.
func TestPodOfInferd(t *testing.T) {
	tool(t, "runc", "runc")
	root, config := unpacked(t)
	all := manifests(t, packaging+"/kubernetes/inferd.yaml")
	m, c := deploymentOf(t, all)
	if !c.SecurityContext.ReadOnlyRootFilesystem || c.StartupProbe == nil || c.LivenessProbe == nil || c.ReadinessProbe == nil {
		t.Fatalf("the test reads the manifest wrong: %+v", c)
	}
	p := runPod(t, root, config, slices.Concat(c.Command, c.Args), nil, true, volumes(t, all, m, models(t)))
	p.succeeds(c, "startup", c.StartupProbe)
	p.succeeds(c, "readiness", c.ReadinessProbe)
	p.succeeds(c, "liveness", c.LivenessProbe)
	p.answers("half_plus_two")

	if out, err := p.exec(c.Lifecycle.PreStop.Exec.Command...); err != nil || !strings.Contains(out, "not ready from now on") {
		t.Errorf("preStop: %v: %s", err, out)
	}
	if code, _, err := p.probe(c, c.ReadinessProbe); err != nil || code != http.StatusServiceUnavailable {
		t.Errorf("after preStop the readiness probe gets %d, %v", code, err)
	}
	p.succeeds(c, "liveness", c.LivenessProbe)
	p.answers("half_plus_two")
	p.http.CloseIdleConnections()
	p.stop(m.Spec.Template.Spec.TerminationGracePeriodSeconds)
}

// TestPodOfTensorFlowServing: their Deployment, command line, file, probe and writable root, with our image.
func TestPodOfTensorFlowServing(t *testing.T) {
	tool(t, "runc", "runc")
	root, config := unpacked(t)
	all := manifests(t, packaging+"/kubernetes/tensorflow-serving.yaml")
	m, c := deploymentOf(t, all)
	p := runPod(t, root, config, slices.Concat(c.Command, c.Args), nil, c.SecurityContext.ReadOnlyRootFilesystem, volumes(t, all, m, models(t)))
	p.succeeds(c, "readiness", c.ReadinessProbe)
	until(t, "answers", func() error { return half(t.Context(), p.http, "http://127.0.0.1:8501", "half_plus_two") })
	p.answers("half_plus_two")
	p.http.CloseIdleConnections()
	p.stop(60)
}

// TestPodWithTheShortestCommand: gRPC and a file, as a Deployment that wants no more has it.
func TestPodWithTheShortestCommand(t *testing.T) {
	tool(t, "runc", "runc")
	root, config := unpacked(t)
	all := manifests(t, packaging+"/kubernetes/tensorflow-serving.yaml")
	m, c := deploymentOf(t, all)
	args := slices.DeleteFunc(slices.Clone(c.Args), func(a string) bool { return strings.HasPrefix(a, "--rest_api_port") })
	if want := []string{"--port=8500", "--model_config_file=/model_config.prototxt"}; !slices.Equal(args, want) {
		t.Fatalf("the manifest's arguments are %q", c.Args)
	}
	p := runPod(t, root, config, slices.Concat(c.Command, args), nil, c.SecurityContext.ReadOnlyRootFilesystem, volumes(t, all, m, models(t)))
	conn, err := grpc.NewClient("passthrough:///127.0.0.1:8500", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(p.dial))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	until(t, "an answer over gRPC", func() error { return halfGRPC(conn) })
	if c, err := p.dial(t.Context(), "127.0.0.1:8501"); err == nil {
		_ = c.Close()
		t.Error("a REST port is open that nobody asked for")
	}
	p.stop(60)
}

// TestContainerAsTheirsIsRun: no command, a model's name in the environment, a read-only root, and the image's own health check.
func TestContainerAsTheirsIsRun(t *testing.T) {
	tool(t, "runc", "runc")
	root, config := unpacked(t)
	p := runPod(t, root, config, config.Entrypoint, []string{"MODEL_NAME=half_plus_two"}, true, []mount{
		{"/models", "bind", models(t), []string{"bind", "ro"}}, {"/tmp", "tmpfs", "tmpfs", nil}, {"/run/inferd", "tmpfs", "tmpfs", []string{"mode=1777"}},
	})
	check := config.Healthcheck.Test
	if len(check) < 2 || check[0] != "CMD" {
		t.Fatalf("the health check is %q", check)
	}
	until(t, "a healthy container", func() error {
		if out, err := p.exec(check[1:]...); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	until(t, "answers", func() error { return half(t.Context(), p.http, "http://127.0.0.1:8501", "half_plus_two") })
	p.answers("half_plus_two")
	p.http.CloseIdleConnections()
	p.stop(60)
}
