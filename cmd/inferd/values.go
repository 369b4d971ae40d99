// values.go: how a prediction's answer is printed, whichever way it came.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// widestRow is how much of one row the table shows.
const widestRow = 400

// printAnswer prints the body of a REST answer.
func (e *env) printAnswer(answer []byte) error {
	answer = quoteNumbers(answer)
	if e.output == formatJSON {
		var indented bytes.Buffer
		if err := json.Indent(&indented, bytes.TrimSpace(answer), "", "  "); err != nil {
			return fmt.Errorf("the answer is no JSON: %w", err)
		}
		indented.WriteByte('\n')
		_, err := e.out.Write(indented.Bytes())
		return err
	}
	var got map[string]any
	dec := json.NewDecoder(bytes.NewReader(answer))
	dec.UseNumber() // an int64 is printed as it was sent
	if err := dec.Decode(&got); err != nil {
		return fmt.Errorf("the answer is no JSON: %w", err)
	}
	if named, ok := got["outputs"].(map[string]any); ok && got["predictions"] == nil {
		got = named
	}
	table(e.out, got)
	return nil
}

// printOutputs prints named outputs, in the form in which REST answers to named inputs.
func (e *env) printOutputs(named map[string]any) error {
	var answer any = named
	if len(named) == 1 {
		for _, only := range named {
			answer = only
		}
	}
	return e.print(map[string]any{"outputs": answer}, func(w io.Writer) { table(w, named) })
}

// table has a line per row of the first dimension.
func table(w io.Writer, values map[string]any) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		rows, list := values[name].([]any)
		if !list {
			fmt.Fprintf(t, "%s\t%s\n", name, cell(values[name]))
		}
		for i, row := range rows {
			fmt.Fprintf(t, "%s[%d]\t%s\n", name, i, cell(row))
		}
		if list && len(rows) == 0 {
			fmt.Fprintf(t, "%s\t[]\n", name)
		}
	}
	_ = t.Flush() // the terminal is gone when this fails
}

func cell(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	text := bytes.TrimSpace(b.Bytes())
	if len(text) > widestRow {
		return string(bytes.ToValidUTF8(text[:widestRow], nil)) + "... (-o json has all)"
	}
	return string(text)
}

// quoteNumbers puts the numbers that are not JSON (NaN, Infinity, -Infinity, as TensorFlow Serving and inferd print them) in quotes.
func quoteNumbers(doc []byte) []byte {
	if !bytes.Contains(doc, []byte("NaN")) && !bytes.Contains(doc, []byte("Infinity")) {
		return doc
	}
	out := make([]byte, 0, len(doc)+64)
	for i := 0; i < len(doc); {
		if doc[i] == '"' {
			end := i + 1
			for end < len(doc) && doc[end] != '"' {
				if doc[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end+1, len(doc))
			out, i = append(out, doc[i:end]...), end
			continue
		}
		if word := bareNumber(doc[i:]); word != "" {
			out, i = append(append(append(out, '"'), word...), '"'), i+len(word)
			continue
		}
		out, i = append(out, doc[i]), i+1
	}
	return out
}

func bareNumber(b []byte) string {
	for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
		if bytes.HasPrefix(b, []byte(word)) {
			return word
		}
	}
	return ""
}
