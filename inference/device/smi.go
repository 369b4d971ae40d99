// smi.go: reading what nvidia-smi answers.
package device

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Query is the field list that [ParseSMI] reads: nvidia-smi --query-gpu=Query --format=csv,noheader,nounits. Drivers before 510 do not know
// all of it and are asked for QueryOld.
const (
	Query    = QueryOld + ",compute_cap,mig.mode.current"
	QueryOld = "index,uuid,name,memory.total,memory.free"
)

// ParseSMI reads nvidia-smi's answer to [Query] or [QueryOld]. An empty answer, or its sentence that there are no devices, is no GPUs and
// no error. The ordinals are for [Visible] to set.
func ParseSMI(answer string) ([]GPU, error) {
	answer = strings.TrimSpace(answer)
	if answer == "" || strings.HasPrefix(answer, "No devices were found") {
		return nil, nil
	}
	r := csv.NewReader(strings.NewReader(answer))
	r.TrimLeadingSpace = true
	r.LazyQuotes = true
	r.FieldsPerRecord = -1
	records, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("nvidia-smi answered %s: %w", short(answer), err)
	}
	var all []GPU
	for _, f := range records {
		if len(f) == fields(QueryOld) {
			f = append(f, "", "")
		}
		if len(f) != fields(Query) {
			return nil, fmt.Errorf("nvidia-smi answered %s, not the fields asked for", short(strings.Join(f, ", ")))
		}
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		g, err := parseGPU(f)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(o GPU) bool { return o.Index == g.Index }) {
			return nil, fmt.Errorf("nvidia-smi answered twice about GPU %d", g.Index)
		}
		all = append(all, g)
	}
	return all, nil
}

func fields(query string) int { return strings.Count(query, ",") + 1 }

func parseGPU(f []string) (GPU, error) {
	index, err := strconv.Atoi(f[0])
	if err != nil || index < 0 {
		return GPU{}, fmt.Errorf("nvidia-smi answered the index %s", short(f[0]))
	}
	g := GPU{Index: index, UUID: f[1], Name: f[2], MIG: f[6] == "Enabled"}
	if !strings.HasPrefix(g.UUID, "GPU-") && !strings.HasPrefix(g.UUID, "MIG-") {
		return GPU{}, fmt.Errorf("nvidia-smi about GPU %d answered the UUID %s", index, short(f[1]))
	}
	total, err := mebibytes(f[3])
	if err == nil {
		g.TotalBytes = total
		g.FreeBytes, err = mebibytes(f[4])
	}
	if err != nil {
		return GPU{}, fmt.Errorf("nvidia-smi about GPU %d answered %w", index, err)
	}
	if g.FreeBytes > g.TotalBytes && g.TotalBytes > 0 {
		return GPU{}, fmt.Errorf("nvidia-smi about GPU %d answered that more memory is free than there is, %s of %s MiB", index, f[4], f[3])
	}
	if g.TotalBytes == 0 || g.FreeBytes == 0 && bracketed(f[4]) {
		g.TotalBytes, g.FreeBytes = 0, 0 // half of it would be of no use
	}
	if _, err := strconv.ParseFloat(f[5], 64); err == nil {
		g.Capability = f[5]
	}
	return g, nil
}

// mebibytes reads a number of MiB. What nvidia-smi puts in brackets, [N/A] or [Insufficient Permissions], is an unknown number: 0.
func mebibytes(s string) (int64, error) {
	if bracketed(s) {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return 0, fmt.Errorf("%s MiB of memory", short(s))
	}
	return n << 20, nil
}

func bracketed(s string) bool { return strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") }

// TooOld reports whether the answer says that the driver does not know a field of the query.
func TooOld(answer string) bool { return strings.Contains(answer, "is not a valid field to query") }

// short quotes s, and cuts off what is too long for a log line.
func short(s string) string {
	const most = 160
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}
