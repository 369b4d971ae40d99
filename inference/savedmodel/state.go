// state.go: which ops change something that outlives the run.
package savedmodel

import "strings"

// statePrefixes begin the names of ops that change variables, queues, tables, files or iterators. Left out on purpose: ops whose state
// ends with the run (TensorArray, Stack, TemporaryVariable), table initialisers (they always put the same), and the kernels' own
// random numbers (nothing reads them back).
var statePrefixes = []string{
	"Assign", "Apply", "SparseApply", // of variables; Apply also begins no op of another kind
	"ResourceApply", "ResourceSparseApply", "ResourceScatter", "ResourceAccumulator", "ResourceStridedSliceAssign", "ResourceCountUpTo",
	"ScatterNdUpdate", "ScatterNdAdd", "ScatterNdSub", "ScatterNdMax", "ScatterNdMin", // ScatterNd and ScatterNdNonAliasingAdd are pure
	"Accumulator", "SparseAccumulator",
	"QueueEnqueue", "QueueDequeue", "QueueClose",
	"LookupTableInsert", "LookupTableImport", "LookupTableRemove",
	"Barrier",
	"Write", "Save", "MergeV2Checkpoints",
	"ReaderRead", "ReaderReset", "ReaderRestoreState",
	"IteratorGetNext",
	"StatefulUniform", "StatefulStandardNormal", "StatefulTruncatedNormal", "StatefulRandomBinomial", "RngSkip", "RngReadAndSkip",
	"InfeedEnqueue", "OutfeedEnqueue", "CloseSummaryWriter", "CreateSummary", "FlushSummaryWriter", "ImportEvent",
	"TPUExecuteAndUpdateVariables",
}

var stateOps = map[string]bool{
	"ScatterUpdate": true, "ScatterAdd": true, "ScatterSub": true, "ScatterMul": true, "ScatterDiv": true, "ScatterMin": true, "ScatterMax": true,
	"StridedSliceAssign": true, "CountUpTo": true, "DestroyResourceOp": true,
	"Stage": true, "Unstage": true, "StageClear": true,
	"MapStage": true, "MapUnstage": true, "MapUnstageNoKey": true, "MapClear": true,
	"OrderedMapStage": true, "OrderedMapUnstage": true, "OrderedMapUnstageNoKey": true, "OrderedMapClear": true,
	"AddSparseToTensorsMap": true, "AddManySparseToTensorsMap": true, "TakeManySparseFromTensorsMap": true,
	"BoostedTreesUpdateEnsemble": true, "BoostedTreesUpdateEnsembleV2": true, "BoostedTreesCenterBias": true,
	"BoostedTreesDeserializeEnsemble": true, "BoostedTreesQuantileStreamResourceAddSummaries": true,
	"BoostedTreesQuantileStreamResourceDeserialize": true, "BoostedTreesQuantileStreamResourceFlush": true,
	"DatasetToTFRecord": true, "PyFunc": true, "EagerPyFunc": true, // anything may happen in them
}

// keepsState lists what a prefix would take wrongly.
var keepsState = map[string]bool{"BarrierReadySize": true, "BarrierIncompleteSize": true, "AccumulatorNumAccumulated": true,
	"ResourceAccumulatorNumAccumulated": true, "Barrier": true}

// changesState reports whether a run of the op changes something that a later run can see.
func changesState(op string) bool {
	if stateOps[op] {
		return true
	}
	if keepsState[op] {
		return false
	}
	for _, p := range statePrefixes {
		if strings.HasPrefix(op, p) {
			return true
		}
	}
	return false
}

// restores reports whether the op reads variables from files.
func restores(op string) bool { return op == "RestoreV2" || op == "Restore" || op == "RestoreSlice" }
