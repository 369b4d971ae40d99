// golden.go: an answer as a golden case, for the next version's folder.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
)

// appendGolden adds a line to file, which it makes when there is none: the request, of which members has the parts, with its answer.
func appendGolden(file string, members map[string]json.RawMessage, answer []byte) error {
	line, err := goldenLine(members, answer)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// layout is white space of the answer's layout: in a string a line's end is escaped.
var layout = regexp.MustCompile(`\n *`)

// goldenLine joins the two objects. The answer's text stays as it came, for NaN is no JSON and numbers must not change.
func goldenLine(members map[string]json.RawMessage, answer []byte) ([]byte, error) {
	request := make(map[string]json.RawMessage)
	for _, key := range []string{"signature_name", "instances", "inputs"} { // others mean nothing
		if v, ok := members[key]; ok {
			request[key] = v
		}
	}
	line, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	answer = bytes.TrimSpace(layout.ReplaceAll(answer, nil))
	if len(answer) < 2 || answer[0] != '{' {
		return nil, fmt.Errorf("the answer is no JSON object: %.200s", answer)
	}
	return append(append(line[:len(line)-1], ','), answer[1:]...), nil
}
