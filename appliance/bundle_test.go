// bundle_test.go: support archives of a machine full of secrets, searched for them.
package appliance

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// archive makes one and reads it, by the names of its files.
func archive(t *testing.T, o BundleOptions) (map[string]string, *BundleManifest) {
	t.Helper()
	var out bytes.Buffer
	o.Version = "test"
	if _, err := Bundle(t.Context(), &out, o); err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		name, ok := strings.CutPrefix(h.Name, "inferd-bundle/")
		if !ok || !filepath.IsLocal(name) {
			t.Errorf("a file is called %q", h.Name)
		}
		files[name] = string(text)
	}
	m := new(BundleManifest)
	if err := json.Unmarshal([]byte(files["manifest.json"]), m); err != nil {
		t.Fatal(err)
	}
	named := []string{"manifest.json"}
	for _, f := range m.Files {
		named = append(named, f.Name)
		if len(files[f.Name]) != f.Bytes {
			t.Errorf("%s has %d bytes, and the manifest says %d", f.Name, len(files[f.Name]), f.Bytes)
		}
	}
	slices.Sort(named)
	if in := slices.Sorted(maps.Keys(files)); !slices.Equal(in, named) {
		t.Errorf("in the archive are %v, in the manifest %v", in, named)
	}
	return files, m
}

// secretive fails where a file has one of the secrets.
func secretive(t *testing.T, files map[string]string, secrets map[string]string) {
	t.Helper()
	for name, text := range files {
		for what, secret := range secrets {
			if strings.Contains(text, secret) {
				i := strings.Index(text, secret)
				t.Errorf("%s has %s: ...%s", name, what, text[max(0, i-80):min(len(text), i+80)])
			}
		}
	}
}

func wants(t *testing.T, files map[string]string, want map[string][]string) {
	t.Helper()
	for name, texts := range want {
		for _, text := range texts {
			if !strings.Contains(files[name], text) {
				t.Errorf("%s lacks %q: %.2000s", name, text, files[name])
			}
		}
	}
}

func TestBundleOfARunningInferd(t *testing.T) {
	const token, client, idempotency, field = "tok-4f6e1c9ab377d2", "camera-behind-the-bakery", "idem-9981-secret-key", "payload-is-nobodys-business"
	cert, key := certificate(t, 1)
	t.Setenv("EXAMPLE_API_TOKEN", token)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "cert"), cert)
	write(t, filepath.Join(dir, "key"), key)
	secrets := map[string]string{
		"a token": token, "a client's name": client, "an idempotency key": idempotency, "a payload": field, "a payload's number": "8191.4",
		"the TLS key": strings.Split(string(key), "\n")[1], "the certificate": strings.Split(string(cert), "\n")[1],
	}

	s := serve(t, func(cfg *config.Config) {
		cfg.Log.Level = "debug"
		cfg.StateDir = filepath.Join(filepath.Dir(cfg.StateDir), "state-"+token) // so that it is found where nobody looks for it
		cfg.Queue.MaxAttempts, cfg.Queue.MaxDeaths = 1, 1
	})
	s.publish("half", 1, modeltest.HalfPlusTwo())
	s.publish("crasher", 1, modeltest.Crasher())
	s.live("half", 1)
	s.live("crasher", 1)
	if _, err := s.askREST(t.Context(), "half", []float32{8191.4375}, "X-Inferd-Client", client); err != nil {
		t.Fatal(err)
	}
	s.untilEnded(s.submit("half", 8191.4375, "Idempotency-Key", idempotency, "X-Inferd-Client", client), "done")
	s.untilEnded(s.submit("crasher", -1, "Idempotency-Key", idempotency+"2"), "dead")
	if code, _, _ := s.call(http.MethodPost, "/v1/models/half:predict", `{"instances": ["`+field+`"]}`); code != http.StatusBadRequest {
		t.Fatalf("a wrong request is answered %d", code)
	}

	cfg := *s.cfg
	cfg.Listen.TLS.Cert, cfg.Listen.TLS.Key = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	files, m := archive(t, BundleOptions{Config: &cfg})
	secretive(t, files, secrets)
	if !m.Running || m.Blackened["known"] == 0 {
		t.Errorf("running %v, left out %v", m.Running, m.Blackened)
	}
	wants(t, files, map[string][]string{
		"status.json": {`"name": "half"`, `"stage": "live"`}, "version.txt": {"this command: inferd test", "libtensorflow"}, "metrics.txt": {"inferd_ready 1", `inferd_requests_total{code="OK",model="half"`},
		"admission.json": {`"memory"`}, "queue.json": {`"dead": 1`, `"finished": 1`}, "history/half.json": {`"published"`}, "doctor.json": {"listen.control"},
		"configuration.yaml": {"state_dir: ", "key: " + dir + "/key"}, "folders.txt": {"half\t", "    1\t", "queue.db"}, "process.txt": {"Max open files", "VmRSS"}, "kernel.txt": {"Linux version"},
	})
	if !slices.ContainsFunc(m.LeftOut, func(g BundleGap) bool { return g.Name == "audit.txt" }) {
		t.Errorf("left out are %v", m.LeftOut)
	}

	// And of the same machine when inferd is down.
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	files, m = archive(t, BundleOptions{Config: &cfg})
	secretive(t, files, secrets)
	if m.Running {
		t.Error("nobody runs")
	}
	wants(t, files, map[string][]string{"audit.txt": {"nothing is wrong with it"}, "queue.json": {`"Dead": 1`}, "folders.txt": {"half\t", "state.db"}})
}

// TestBundleOfAFaultyConfiguration: where nothing can be read there is an archive all the same, and it says why.
func TestBundleOfAFaultyConfiguration(t *testing.T) {
	_, fault := config.Parse("inferd.yaml", []byte("state_dri: /x\n"), nil)
	files, m := archive(t, BundleOptions{ConfigErr: fault, Address: filepath.Join(t.TempDir(), "none")})
	if !slices.ContainsFunc(m.LeftOut, func(g BundleGap) bool {
		return g.Name == "configuration.yaml" && strings.Contains(g.Why, "did you mean state_dir")
	}) {
		t.Errorf("left out are %v", m.LeftOut)
	}
	wants(t, files, map[string][]string{"kernel.txt": {"Linux"}, "memory.txt": {"MemTotal"}})
	if _, err := Bundle(t.Context(), fullDisk{}, BundleOptions{}); err == nil {
		t.Error("an archive was written to a full disk")
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestWhatIsBlackened(t *testing.T) {
	_, key := certificate(t, 1)
	b := &blackener{counts: make(map[string]int)}
	b.know("s3cr3t-of-this-machine")
	b.know("short") // a word
	for text, want := range map[string]string{
		"err=\"s3cr3t-of-this-machine\"":                            `err="(left out)"`,
		"short and long":                                            "short and long",
		"x\n" + string(key) + "y":                                   "x\n(left out)\ny",
		"-----BEGIN RSA PRIVATE KEY-----\nMIIcut":                   "(left out)",
		"Authorization: Bearer abcdefghijkl.mn":                     "Authorization: (left out)",
		`Idempotency-Key: reading-4711, x`:                          "(left out), x",
		`{"idempotency_key": "a b", "n": 1}`:                        `{"(left out), "n": 1}`,
		`password="p w" client_secret=abc`:                          "(left out) (left out)",
		"http://user:pass@proxy:3128/":                              "(left out)proxy:3128/",
		"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln":                 "(left out)",
		"key: /etc/inferd/tls.key, tokens_file: /etc/inferd/t.yaml": "key: /etc/inferd/tls.key, tokens_file: /etc/inferd/t.yaml",
	} {
		if got := string(b.out([]byte(text))); got != want {
			t.Errorf("of %q is left %q, want %q", text, got, want)
		}
	}
	got, err := withoutSecrets([]byte("access:\n  tokens_file: /etc/t\n  tokens: [abc, def]\n  admin_password: x\nlisten: {key: /k}\n"))
	if err != nil || strings.Contains(string(got), "abc") || strings.Contains(string(got), "password: x") || !strings.Contains(string(got), "/etc/t") || !strings.Contains(string(got), "key: /k") {
		t.Errorf("%v: %s", err, got)
	}
}

func TestLogOfABundle(t *testing.T) {
	const records = `{"__REALTIME_TIMESTAMP":"1700000000000000","PRIORITY":"6","EVENT":"version live","COMPONENT":"updater","MODEL":"m","VERSION":"7","MESSAGE":"version live model=m"}
{"__REALTIME_TIMESTAMP":"1700000001000000","PRIORITY":"4","EVENT":"tensorflow","MODEL":"m","TEXT":"payload printed by PrintV2","MESSAGE":"tensorflow text=payload"}
{"__REALTIME_TIMESTAMP":"1700000002000000","PRIORITY":"4","EVENT":"job is a dead letter","COMPONENT":"queue","ID":"client-id","MODEL":"m","ERR":"payload is no number","MESSAGE":"payload"}
{"__REALTIME_TIMESTAMP":"1700000003000000","PRIORITY":"3","EVENT":"version refused","COMPONENT":"updater","ERR":"no input x","MESSAGE":"version refused"}
{"__REALTIME_TIMESTAMP":"1700000004000000","PRIORITY":"6","_PID":"1","SYSLOG_IDENTIFIER":"systemd","MESSAGE":"inferd.service: Main process exited, code=killed, status=6/ABRT"}
{"__REALTIME_TIMESTAMP":"1700000005000000","PRIORITY":"6","MESSAGE":"some payload on standard error"}
{"__REALTIME_TIMESTAMP":"1700000006000000","PRIORITY":"6","MESSAGE":[112,97,121]}
{"__REALTIME_TIMESTAMP":"1700000007000000","PRIORITY":"6","MESSAGE":"goroutine 1 [running]:"}
{"__REALTIME_TIMESTAMP":"1700000008000000","PRIORITY":"6","MESSAGE":"main.main()"}
{"__REALTIME_TIMESTAMP":"1700000009000000","PRIORITY":"6","MESSAGE":"panic: payload"}
not JSON
`
	const want = `2023-11-14T22:13:20.000Z <6> version live component=updater model=m version=7
2023-11-14T22:13:21.000Z <4> tensorflow model=m
2023-11-14T22:13:22.000Z <4> job is a dead letter component=queue model=m err="(left out)"
2023-11-14T22:13:23.000Z <3> version refused component=updater err="no input x"
2023-11-14T22:13:24.000Z <6> inferd.service: Main process exited, code=killed, status=6/ABRT
2023-11-14T22:13:27.000Z <6> goroutine 1 [running]:
2023-11-14T22:13:28.000Z <6> main.main()
`
	if got, dropped := logLines(strings.NewReader(records)); string(got) != want || dropped != 4 {
		t.Errorf("%d dropped:\n%s\nwant 4 and\n%s", dropped, got, want)
	}
}

func FuzzLogOfABundle(f *testing.F) {
	f.Add([]byte(`{"EVENT":"x","PRIORITY":"6","MESSAGE":"y"}`))
	f.Add([]byte(`{"MESSAGE":[1,2],"_PID":"1"}`))
	f.Fuzz(func(t *testing.T, record []byte) {
		text, _ := logLines(bytes.NewReader(record))
		if len(text) > 0 && text[len(text)-1] != '\n' {
			t.Errorf("%q", text)
		}
	})
}
