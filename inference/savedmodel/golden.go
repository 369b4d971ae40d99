// golden.go: golden cases, a file of requests with the answers that are expected to them, one JSON object a line.
package savedmodel

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/inferd/inferd/inference"
)

// GoldenFile has the golden cases, by its path in the version folder.
const GoldenFile = "assets.extra/inferd_golden.jsonl"

const (
	maxGoldenFile  = 256 << 20 // bytes
	maxGoldenLine  = 16 << 20  // bytes
	maxGoldenCases = 1000
)

// EachGolden calls f with each golden case and the number of its line, counted from 1, until f returns an error; it does nothing where
// there is no file. Empty lines are passed over. text is valid until f returns. Errors that are not f's are *inference.Error.
func EachGolden(dir string, f func(line int, text []byte) error) error {
	file, size, err := openFile(filepath.Join(dir, GoldenFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "%v", err)
	}
	defer file.Close() //nolint:errcheck // only read
	if size > maxGoldenFile {
		return inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "%s has %d bytes, at most %d are read; keep fewer or smaller cases", GoldenFile, size, maxGoldenFile)
	}
	return eachGolden(file, f)
}

func eachGolden(file io.Reader, f func(line int, text []byte) error) error {
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxGoldenLine)
	cases, n := 0, 0
	for lines.Scan() {
		n++
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		if cases++; cases > maxGoldenCases {
			return inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "%s has more than %d cases, on line %d and after; keep fewer, each with more rows", GoldenFile, maxGoldenCases, n)
		}
		if err := f(n, text); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "line %d of %s has %d bytes or more, which is over the limit; split it into cases with fewer rows", n+1, GoldenFile, maxGoldenLine)
	case err != nil:
		return inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "line %d of %s cannot be read: %v", n+1, GoldenFile, err)
	}
	return nil
}
