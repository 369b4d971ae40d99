// bare.go: the engines below the servers, each in a process of its own that is told how often to run what: bare TensorFlow, ONNX Runtime,
// OpenVINO.
package main

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/inference/tfrt"
	"github.com/inferd/inferd/tools/measure"
)

// engine is one process, with the model loaded.
type engine struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// startEngine starts a command and holds its answers, which it prints before "ready", against TensorFlow's.
func startEngine(name string, m *model, env []string, argv ...string) (*engine, float64, error) {
	e := &engine{name: name, cmd: exec.Command(argv[0], argv[1:]...)}
	log, err := os.Create(filepath.Join(filepath.Dir(m.home), "..", "log-engine-"+strings.ReplaceAll(name, " ", "-")+"-"+m.Name+".txt"))
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	e.cmd.Stderr, e.cmd.Env = log, append(append(os.Environ(), "TF_CPP_MIN_LOG_LEVEL=2"), env...)
	if e.in, err = e.cmd.StdinPipe(); err != nil {
		return nil, 0, err
	}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return nil, 0, err
	}
	if err := e.cmd.Start(); err != nil {
		return nil, 0, err
	}
	e.out = bufio.NewReaderSize(out, 1<<20)
	var got []column
	for {
		line, err := e.out.ReadString('\n')
		if err != nil {
			e.stop()
			return nil, 0, fmt.Errorf("%s ended early, see %s: %w", name, log.Name(), err)
		}
		if line = strings.TrimSpace(line); line == "ready" {
			break
		}
		data, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(got) == len(m.Outputs) {
			e.stop()
			return nil, 0, fmt.Errorf("%s printed %.200q", name, line)
		}
		got = append(got, column{Name: m.Outputs[len(got)].Name, Floats: data})
	}
	worst, err := m.compare(got, 0, m.Rows)
	if err != nil {
		e.stop()
		return nil, 0, fmt.Errorf("%s: %w", name, err)
	}
	return e, worst, nil
}

// rate has the engine run for a while and returns rows per second.
func (e *engine) rate(d time.Duration, order ...int) (float64, error) {
	words := make([]string, 0, len(order)+1)
	for _, o := range order {
		words = append(words, strconv.Itoa(o))
	}
	if _, err := fmt.Fprintln(e.in, strings.Join(append(words, strconv.FormatFloat(d.Seconds(), 'f', -1, 64)), " ")); err != nil {
		return 0, err
	}
	line, err := e.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("%s ended: %w", e.name, err)
	}
	return strconv.ParseFloat(strings.TrimSpace(line), 64)
}

func (e *engine) stop() {
	_ = e.in.Close()
	_ = e.cmd.Wait()
}

// bare is the child that calls TF_SessionRun: HOME NAME INTRA INTER; INTER 0 runs the graph in the calling thread. It prints its answers, then
// "ready", and for each line "BATCH CALLERS SECONDS" of standard input the rows per second.
func bare(args []string) error {
	if len(args) != 4 {
		return errors.New("bare: HOME NAME INTRA INTER")
	}
	m, err := readModel(args[0])
	if err != nil {
		return err
	}
	intra, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	inter, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	loaded, sig, err := measure.LoadBare(m.dir(), tfrt.Options{IntraOpThreads: intra, InterOpThreads: inter})
	if err != nil {
		return err
	}
	order := outputOrder(sig, m)
	all, err := m.tensor(0, m.Rows)
	if err != nil {
		return err
	}
	_, err = loaded.Call(sig, []*tensor.Tensor{all}, order, func(_ int, t *tensor.Tensor) error {
		fmt.Println(base64.StdEncoding.EncodeToString(t.Data))
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var batch, callers int
		var seconds float64
		if _, err := fmt.Sscan(lines.Text(), &batch, &callers, &seconds); err != nil {
			return err
		}
		x, err := m.repeated(batch)
		if err != nil {
			return err
		}
		rate, err := measure.Drive(callers, time.Duration(seconds*float64(time.Second)), func(int) (func() error, func(), error) {
			return func() error {
				_, err := loaded.Call(sig, []*tensor.Tensor{x}, order, func(int, *tensor.Tensor) error { return nil })
				return err
			}, func() {}, nil
		})
		if err != nil {
			return err
		}
		fmt.Println(rate * float64(batch))
	}
	return nil
}

// outputOrder are the places in the signature of the outputs in the model's order.
func outputOrder(sig *inference.Signature, m *model) (order []int) {
	for _, o := range m.Outputs {
		for i, s := range sig.Outputs {
			if s.Alias == o.Name {
				order = append(order, i)
			}
		}
	}
	return order
}

// tensor has n rows from the given one on.
func (m *model) tensor(from, n int) (*tensor.Tensor, error) {
	in := m.Input.rows(from, n)
	return tensor.New(tensor.Float, m.shape(n), in.Floats)
}

func (m *model) shape(n int) tensor.Shape {
	s := tensor.Shape{int64(n)}
	for _, d := range m.Input.Shape {
		s = append(s, int64(d))
	}
	return s
}

// repeated is the first row n times.
func (m *model) repeated(n int) (*tensor.Tensor, error) {
	row := m.Input.rows(0, 1).Floats
	data := make([]byte, 0, n*len(row))
	for range n {
		data = append(data, row...)
	}
	return tensor.New(tensor.Float, m.shape(n), data)
}
