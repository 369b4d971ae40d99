// arrive.go: how soon what was copied in answers, and what a thousand models cost that nobody changes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/tools/measure"
)

// arrivals are measured at least so often each.
const arrivals = 10

// settleTime is what start gives inferd.
const settleTime = 200 * time.Millisecond

// arrival is the time from the last byte of a new version to its first answer, less what its worker took for the load and the warm-up.
func (b *bench) arrival() error {
	root, err := os.MkdirTemp(b.work, "arrival-")
	if err != nil {
		return err
	}
	models := filepath.Join(root, "models")
	small := modeltest.Scalar()
	if _, err := small.Publish(filepath.Join(models, small.Name), 1); err != nil {
		return err
	}
	s, err := b.serve(models)
	if err != nil {
		return err
	}
	defer s.stop()
	side := 5120 // 100 MB
	row, err := jsonBody(make([]byte, 4*side), side)
	if err != nil {
		return err
	}
	for _, m := range []struct {
		name  string
		model *modeltest.Model
		body  []byte
	}{
		{"small model", small, []byte(`{"inputs": 1}`)},
		{"100 MB", modeltest.Dense(side), row},
	} {
		source := filepath.Join(root, "source", m.model.Name)
		if err := m.model.Save(source); err != nil {
			return err
		}
		for _, way := range []struct {
			name   string
			settle time.Duration
			bring  func(from, to string) (time.Time, error)
		}{
			{"mv", 0, moveIn}, {"cp -r", settleTime, copyIn},
		} {
			var over []float64
			for i := range max(arrivals, b.n) {
				version := time.Now().UnixMicro() // higher than any before
				took, err := arriveOnce(s, m.model.Name, source, models, version, m.body, way.bring)
				if err != nil {
					return fmt.Errorf("%s, %s, %d: %w", m.name, way.name, i+1, err)
				}
				over = append(over, float64((took-way.settle).Microseconds())/1000)
			}
			name := fmt.Sprintf("arrival by %s, %s, beyond load and warm-up", way.name, m.name)
			if way.settle > 0 {
				name += " and the settle time"
			}
			verdict(name, measure.Median(over), 250, "ms")
			fmt.Printf("  from %.1f to %.1f ms in %d arrivals\n", quantile(over, 0), quantile(over, 1), len(over))
		}
	}
	return nil
}

// arriveOnce brings a version in, waits for its first answer, and returns the time between less load and warm-up. The version before is removed.
func arriveOnce(s *server, model, source, models string, version int64, body []byte, bring func(from, to string) (time.Time, error)) (time.Duration, error) {
	base := filepath.Join(models, model)
	before, err := os.ReadDir(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		return 0, err
	}
	arrived, err := bring(source, filepath.Join(base, strconv.FormatInt(version, 10)))
	if err != nil {
		return 0, err
	}
	answered, err := firstAnswer(s, fmt.Sprintf("/v1/models/%s/versions/%d:predict", model, version), body)
	if err != nil {
		return 0, err
	}
	load, err := loadTook(s, model, version)
	if err != nil {
		return 0, err
	}
	if err := waitLatest(s, model, version); err != nil {
		return 0, err
	}
	for _, e := range before {
		if err := os.RemoveAll(filepath.Join(base, e.Name())); err != nil {
			return 0, err
		}
	}
	return answered.Sub(arrived) - load, nil
}

// firstAnswer asks until the answer is a prediction.
func firstAnswer(s *server, path string, body []byte) (time.Time, error) {
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		_, err := post(s.http, path, body)
		if err == nil {
			return time.Now(), nil
		}
		if time.Now().After(end) {
			return time.Time{}, fmt.Errorf("%s has no answer: %w", path, err)
		}
	}
}

// moveIn copies beside and renames the whole.
func moveIn(from, to string) (time.Time, error) {
	tmp := filepath.Join(filepath.Dir(from), "moving")
	if _, err := copyIn(from, tmp); err != nil {
		return time.Time{}, err
	}
	// A rename within the tick of the file system's clock (some milliseconds) in which the last file was written looks like a copy. Nobody's mv
	// comes so soon.
	time.Sleep(100 * time.Millisecond)
	err := os.Rename(tmp, to)
	return time.Now(), err
}

// copyIn copies file by file, as cp -r does, and returns when the last byte was written.
func copyIn(from, to string) (time.Time, error) {
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if e.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		return copyFile(path, target)
	})
	return time.Now(), err
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// manyModels is how soon a new version shows among a thousand models, and what the thousand cost at rest. They are models that nothing is loaded
// of, for there is no runtime: a thousand workers are another question.
func (b *bench) manyModels() error {
	const count, rest = 1000, time.Minute // longer than the interval between two looks at a model
	root, err := os.MkdirTemp(b.work, "many-models-")
	if err != nil {
		return err
	}
	models := filepath.Join(root, "models")
	m := modeltest.TwoLayer()
	name := func(i int) string { return fmt.Sprintf("m%04d", i) }
	for i := range count {
		if _, err := m.Publish(filepath.Join(models, name(i)), 1); err != nil {
			return err
		}
	}
	spare := filepath.Join(root, "spare")
	for i := range arrivals {
		if err := m.Save(filepath.Join(spare, strconv.Itoa(i))); err != nil {
			return err
		}
	}
	s, err := b.start("", models)
	if err != nil {
		return err
	}
	defer s.stop()
	if err := waitReady("http://"+s.http+"/healthz", time.Minute); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for i := range count { // each is refused at last, for there is no runtime
		if err := seen(ctx, s, name(i), 1, "END"); err != nil {
			return err
		}
	}
	time.Sleep(5 * time.Second) // watches are being added, garbage collected
	pid := s.cmd.Process.Pid
	before, began := measure.TreeCPU(pid), time.Now()
	time.Sleep(rest)
	share := (measure.TreeCPU(pid) - before) / time.Since(began).Seconds() * 100
	verdict(fmt.Sprintf("%d models at rest: the core's share of a processor", count), share, 1, "%")

	var noticed []float64
	for i := range arrivals {
		model := name((i*577 + 13) % count)
		if err := os.Rename(filepath.Join(spare, strconv.Itoa(i)), filepath.Join(models, model, "2")); err != nil {
			return err
		}
		renamed := time.Now()
		if err := seen(ctx, s, model, 2, ""); err != nil {
			return err
		}
		noticed = append(noticed, float64(time.Since(renamed).Microseconds())/1000)
	}
	verdict(fmt.Sprintf("a new version among %d models is in the status after", count), measure.Median(noticed), 100, "ms")
	fmt.Printf("  from %.1f to %.1f ms in %d changes\n", quantile(noticed, 0), quantile(noticed, 1), len(noticed))
	return nil
}

// seen waits until the model's status has the version, in the state if one is given.
func seen(ctx context.Context, s *server, model string, version int64, state string) error {
	want := strconv.FormatInt(version, 10)
	for ctx.Err() == nil {
		status, err := getJSON("http://" + s.http + "/v1/models/" + model)
		if err != nil {
			return err
		}
		for _, v := range status.ModelVersionStatus {
			if v.Version == want && (state == "" || v.State == state) {
				return nil
			}
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("model %s version %d does not show", model, version)
}
