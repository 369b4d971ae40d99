// denyops.go: which ops of a graph reach out of the model: to files, to the network, or into code that is not the graph's.
package savedmodel

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// OuterOp is an op that reaches out of the model when the model is loaded or run.
type OuterOp struct {
	Op    string // as in the graph
	Where string // `node "a"` or `function "f"`
	When  string // `signature "serving_default"`, "the initialiser" or "the restore of the variables"
	Does  string // "reads files"
}

// String is a line for an operator.
func (o OuterOp) String() string {
	return fmt.Sprintf("%s %s (in %s, run by %s)", o.Op, o.Does, o.Where, o.When)
}

// What ops do.
const (
	doesRead    = "reads files"
	doesWrite   = "writes files"
	doesNetwork = "uses the network"
	doesCode    = "runs code from outside the graph"
	doesSet     = "changes how files are reached"
)

// outerOps are all ops of TensorFlow 2.20 (its registry of 1798 was gone through by the names of ops, inputs and attributes) that name a
// file, an address or foreign code themselves, and those of TensorRT, which older GPU runtimes have. Ops that only go on with what one of
// these has opened (ReaderReadV2, WriteSummary, RpcGetValue) are left out, and so are XlaCallModule and its kin, which run what the graph
// itself brings, and RemoteCall, which has nowhere to go in a process without a cluster.
var outerOps = func() map[string]string {
	all := make(map[string]string)
	for does, ops := range map[string]string{
		doesRead: `ReadFile MatchingFiles MatchingFilesDataset ExperimentalMatchingFilesDataset WholeFileReader WholeFileReaderV2
			TextLineReader TextLineReaderV2 TFRecordReader TFRecordReaderV2 FixedLengthRecordReader FixedLengthRecordReaderV2 LMDBReader
			RecordInput TextLineDataset TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset FixedLengthRecordDatasetV2 LMDBDataset
			ExperimentalLMDBDataset SqlDataset ExperimentalSqlDataset CSVDataset CSVDatasetV2 ExperimentalCSVDataset LoadDataset
			SnapshotDatasetReader SnapshotNestedDatasetReader SnapshotChunkDataset ListSnapshotChunksDataset GenerateVocabRemapping
			LoadAndRemapMatrix ImmutableConst Skipgram InitializeTableFromTextFile InitializeTableFromTextFileV2
			Restore RestoreV2 RestoreSlice DTensorRestoreV2 DecodeProtoV2 EncodeProto FixedUnigramCandidateSampler InitializeTRTResource`,
		doesWrite: `WriteFile Save SaveSlices SaveV2 MergeV2Checkpoints SaveDataset SaveDatasetV2 DistributedSave DatasetToTFRecord
			ExperimentalDatasetToTFRecord SnapshotDataset SnapshotDatasetV2 CacheDataset CacheDatasetV2 CreateSummaryFileWriter
			CreateSummaryDbWriter ImportEvent PrintV2 DumpTensor CalibrationStatisticsSaver
			SerializeTRTResource`,
		doesNetwork: `RpcServer RpcServerStart RpcServerRegister RpcClient RpcCall DataServiceDataset DataServiceDatasetV2
			DataServiceDatasetV3 DataServiceDatasetV4 RegisterDataset RegisterDatasetV2 DebugIdentity DebugIdentityV2 DebugIdentityV3
			DebugNanCount DebugNumericSummary`,
		doesCode: `PyFunc PyFuncStateless EagerPyFunc DatasetFromGraph XlaCustomCall XlaCustomCallV2`,
		doesSet:  `FileSystemSetConfiguration`,
	} {
		for op := range strings.FieldsSeq(ops) {
			all[op] = does
		}
	}
	return all
}()

// fileMark is put behind the name of an op of fileAttrOps where an attribute makes it touch a file; without it these are harmless.
const fileMark = " with a file"

var fileAttrOps = map[string]bool{"PrintV2": true, "DecodeProtoV2": true, "EncodeProto": true, "FixedUnigramCandidateSampler": true}

// maxAttrKey bounds what is read of an attribute's name, and of its value where only the beginning tells.
const maxAttrKey = 64

// attrOfCaller stands for the value of an attribute that a function takes from whoever calls it: it may name a file.
const attrOfCaller = "(the caller's)"

// attrNamesFile reports whether an attribute of one of fileAttrOps names a file. value may be cut.
func attrNamesFile(key, value string) bool {
	switch key {
	case "output_stream":
		return !slices.Contains([]string{"", "stdout", "stderr", "log(info)", "log(warning)", "log(error)"}, value)
	case "descriptor_source":
		return value != "" && value != "local://" && !strings.HasPrefix(value, "bytes://")
	case "vocab_file":
		return value != ""
	}
	return false
}

// outer has what any run of the model reaches, sorted: the served signatures, the initialiser and the restore of the variables. Nodes
// that nothing runs (the saver's own half for saving, what training left behind) do not count.
func (m *meta) outer(signatures []string) []OuterOp {
	found := make(map[string]OuterOp)
	look := func(when string, from []string, allowed func(op string) bool) {
		m.graph.walk(from, func(op, kind, name string) bool {
			plain, marked := strings.CutSuffix(op, fileMark)
			does, known := outerOps[plain]
			if known && (marked || !fileAttrOps[plain]) && !allowed(plain) {
				if _, told := found[plain]; !told {
					found[plain] = OuterOp{Op: plain, Where: fmt.Sprintf("%s %q", kind, name), When: when, Does: does}
				}
			}
			return true
		})
	}
	none := func(string) bool { return false }
	for _, key := range signatures {
		var outputs []string
		for _, t := range m.signatures[key].GetOutputs() {
			outputs = append(outputs, nodeName(t.GetName()))
		}
		slices.Sort(outputs)
		look(fmt.Sprintf("signature %q", key), outputs, none)
	}
	look("the initialiser", m.initNodes(), func(op string) bool { return len(m.assets) > 0 && initialisesFromAsset[op] })
	look("the restore of the variables", []string{m.restoreOp}, func(op string) bool { return restores(op) || op == "DTensorRestoreV2" })
	return slices.SortedFunc(maps.Values(found), func(a, b OuterOp) int { return cmp.Compare(a.Op, b.Op) })
}

// initialisesFromAsset are the ops with which a table reads its vocabulary, an asset, when the model is loaded.
var initialisesFromAsset = map[string]bool{"InitializeTableFromTextFile": true, "InitializeTableFromTextFileV2": true}

// initNodes are the nodes that TensorFlow's loader runs after the restore.
func (m *meta) initNodes() []string {
	nodes := slices.Clone(m.initOps)
	for _, t := range m.signatures[initOp].GetOutputs() {
		nodes = append(nodes, nodeName(t.GetName()))
	}
	slices.Sort(nodes)
	return nodes
}

// DenyOps refuses a model with ops that reach out of it, but for those that are allowed by name. It touches nothing.
func DenyOps(info *Info, allow []string) error {
	var lines, names []string
	for _, o := range info.Outer {
		if !slices.Contains(allow, o.Op) {
			lines, names = append(lines, o.String()), append(names, o.Op)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return fmt.Errorf("it reaches out of the model: %s; if it may, write allow_ops: [%s], or have it signed", strings.Join(lines, "; "), strings.Join(names, ", "))
}
