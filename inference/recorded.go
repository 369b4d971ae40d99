// recorded.go: a client's call that was recorded, to be made again.
package inference

// RecordedKind says which call was recorded. The numbers are those of log_type in TensorFlow Serving's PredictionLog.
type RecordedKind int

// The calls that can be made again.
const (
	RecordedClassify       RecordedKind = 2 // a ClassificationRequest
	RecordedRegress        RecordedKind = 3 // a RegressionRequest
	RecordedMultiInference RecordedKind = 4 // a MultiInferenceRequest
	RecordedPredict        RecordedKind = 6 // a PredictRequest
)

// Recorded is one recorded call.
type Recorded struct {
	Kind    RecordedKind
	Request []byte // the message as it was sent
}
