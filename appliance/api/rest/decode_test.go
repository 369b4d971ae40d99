// decode_test.go: documents to tensors, and every error that a document can have.
package rest

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func TestDecode(t *testing.T) {
	var (
		f   = one(in("x", tensor.Float))
		str = one(in("x", tensor.String))
		two = one(in("a", tensor.Int32), in("b", tensor.String))
	)
	both := version(map[string][]inference.TensorInfo{
		inference.DefaultSignature: {in("x", tensor.Float)},
		"words":                    {in("w", tensor.String)},
	})
	for name, c := range map[string]struct {
		v    *inference.Version
		body string
		want string // the tensors, in the order of their names
		row  bool
	}{
		"row scalars":             {f, `{"instances": [1, 2.0, 3.25]}`, "float [3] 1 2 3.25", true},
		"row lists":               {f, `{"instances":[[1,2],[3,4],[5,6]]}`, "float [3,2] 1 2 3 4 5 6", true},
		"row objects, one input":  {f, `{"instances": [{"x": [1, 2]}, {"x": [3,4]}]}`, "float [2,2] 1 2 3 4", true},
		"row objects, two inputs": {two, `{"instances":[{"a":1,"b":"p"},{"b":"q","a":2}]}`, `int32 [2] 1 2;string [2] "p" "q"`, true},
		"row objects of lists": {two, `{"instances":[{"a":[[1],[2]],"b":["p"]},{"a":[[3],[4]],"b":["q"]}]}`,
			`int32 [2,2,1] 1 2 3 4;string [2,1] "p" "q"`, true},
		"column plain":             {f, `{"inputs": [[1,2]]}`, "float [1,2] 1 2", false},
		"column scalar":            {f, `{"inputs": 5}`, "float [] 5", false},
		"column named":             {f, `{"inputs": {"x": [1]}}`, "float [1] 1", false},
		"column ignores others":    {f, `{"inputs": {"y": {"z": [1, {}]}, "x": [1], "x": "again"}}`, "float [1] 1", false},
		"column two":               {two, `{"inputs":{"b":[["p"]],"a":7}}`, `int32 [] 7;string [1,1] "p"`, false},
		"empty rows":               {f, `{"instances": [[], []]}`, "float [2,0]", true},
		"empty column":             {f, `{"inputs": []}`, "float [0]", false},
		"empty deep":               {f, `{"inputs": [[[]],[[]]]}`, "float [2,1,0]", false},
		"other keys":               {f, `{"a":{"b":[null,true,{"c":"\u00e9"}]},"instances":[1],"z":1e5}`, "float [1] 1", true},
		"trailing bytes":           {f, `{"instances":[1]} and more]`, "float [1] 1", true},
		"byte order mark":          {f, "\xEF\xBB\xBF{\"instances\":[1]}", "float [1] 1", true},
		"white space":              {f, "\t{ \n\"instances\"\r : [ 1 , 2 ] }", "float [2] 1 2", true},
		"escaped key":              {f, `{"\u0069nstances":[1]}`, "float [1] 1", true},
		"first key counts":         {f, `{"instances":[1],"instances":["x"]}`, "float [1] 1", true},
		"signature first":          {both, `{"signature_name":"words","instances":["a"]}`, `string [1] "a"`, true},
		"signature last":           {both, `{"instances":["a"],"signature_name":"words"}`, `string [1] "a"`, true},
		"signature last, both fit": {both, `{"inputs":[],"signature_name":"words"}`, `string [0]`, false},
		"signature empty":          {both, `{"signature_name":"","instances":[1]}`, `float [1] 1`, true},
		"first signature counts":   {both, `{"signature_name":"words","instances":["a"],"signature_name":1}`, `string [1] "a"`, true},

		"non-finite":   {f, `{"instances":[NaN,Infinity,-Infinity,Inf,-NaN]}`, "float [5] NaN +Inf -Inf +Inf NaN", true},
		"float limits": {f, `{"instances":[3.4028235e38,1e39,1e-46,-0,-0.0,1e-45]}`, "float [6] 3.4028235e+38 +Inf 0 0 -0 1e-45", true},
		"double":       {one(in("x", tensor.Double)), `{"instances":[0.1,1e308,123456789012345678901234567890,-0,1e-400]}`, "double [5] 0.1 1e+308 1.2345678901234568e+29 0 0", true},
		"int32":        {one(in("x", tensor.Int32)), `{"instances":[2147483647,-2147483648,-0]}`, "int32 [3] 2147483647 -2147483648 0", true},
		"int16 wraps":  {one(in("x", tensor.Int16)), `{"instances":[32767,32768]}`, "int16 [2] 32767 -32768", true},
		"int8 wraps":   {one(in("x", tensor.Int8)), `{"instances":[127,-129]}`, "int8 [2] 127 127", true},
		"uint8 wraps":  {one(in("x", tensor.Uint8)), `{"instances":[255,-1,256]}`, "uint8 [3] 255 255 0", true},
		"int64":        {one(in("x", tensor.Int64)), `{"instances":[9223372036854775807,-9223372036854775808]}`, "int64 [2] 9223372036854775807 -9223372036854775808", true},
		"uint32":       {one(in("x", tensor.Uint32)), `{"instances":[4294967295,0]}`, "uint32 [2] 4294967295 0", true},
		"uint64":       {one(in("x", tensor.Uint64)), `{"instances":[18446744073709551615]}`, "uint64 [1] 18446744073709551615", true},
		"bool":         {one(in("x", tensor.Bool)), `{"instances":[true,false , true]}`, "bool [3] 1 0 1", true},
		"strings":      {str, `{"instances":["a","\"\\\/\b\f\n\r\t","\u00e9\uD83D\uDE00","é"]}`, `string [4] "a" "\"\\/\b\f\n\r\t" "é😀" "é"`, true},
		"lone low surrogate": {str, `{"instances":["\uDC00"]}`,
			`string [1] "\xed\xb0\x80"`, true},
		"not UTF-8":           {str, "{\"instances\":[\"\xff\"]}", `string [1] "\xff"`, true},
		"b64 rows":            {str, `{"instances":[{"b64":"aGVsbG8="},{ "b64" : "d29ybGQ" }]}`, `string [2] "hello" "world"`, true},
		"b64 in lists":        {str, `{"instances":[[{"b64":"aGVsbG8="}],["x"]]}`, `string [2,1] "hello" "x"`, true},
		"b64 column":          {str, `{"inputs":{"b64":"aGVsbG8="}}`, `string [] "hello"`, false},
		"b64 named":           {str, `{"inputs":{"x":{"b64":"aGVsbG8="}}}`, `string [] "hello"`, false},
		"b64 tolerant":        {str, `{"instances":[{"b64":"aGVs\n bG8.\t"},{"b64":""},{"b64":"\/+8="}]}`, `string [3] "hello" "" "\xff\xef"`, true},
		"row objects and b64": {two, `{"instances":[{"a":1,"b":{"b64":"aGVsbG8="}}]}`, `int32 [1] 1;string [1] "hello"`, true},
		"no conversion, no elements": {one(in("x", tensor.Half)), `{"inputs":[[]]}`,
			"half [1,0]", false},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := read(c.body, c.v, false)
			if err != nil {
				t.Fatalf("refused: %s", err.Msg)
			}
			var got []string
			for _, in := range d.inputs {
				got = append(got, show(in))
			}
			if text := strings.Join(got, ";"); text != c.want || d.row != c.row {
				t.Errorf("row %v, got %s\nwant row %v, %s", d.row, text, c.row, c.want)
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	var (
		f    = one(in("x", tensor.Float))
		n    = one(in("x", tensor.Int32))
		str  = one(in("x", tensor.String))
		two  = one(in("a", tensor.Int32), in("b", tensor.String))
		none = one()
	)
	const element0 = "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
	for name, c := range map[string]struct {
		v    *inference.Version
		body string
		want string
	}{
		// Syntax.
		"empty":               {f, ``, "JSON Parse error: The document is empty"},
		"blank":               {f, "  \n", "JSON Parse error: The document is empty. at offset: 3"},
		"bracket":             {f, " ]", "JSON Parse error: The document is empty. at offset: 1"},
		"word":                {f, "hello", "JSON Parse error: Invalid value. at offset: 0"},
		"cut off":             {f, `{"instances":[1,`, "JSON Parse error: Invalid value. at offset: 16"},
		"comma at the end":    {f, `{"instances":[1,]}`, "JSON Parse error: Invalid value. at offset: 16"},
		"no name":             {f, `{"instances":[1],}`, "JSON Parse error: Missing a name for object member. at offset: 17"},
		"no name at first":    {f, `{1}`, "JSON Parse error: Missing a name for object member. at offset: 1"},
		"no colon":            {f, `{"instances" [1]}`, "JSON Parse error: Missing a colon after a name of object member. at offset: 13"},
		"no comma in object":  {f, `{"instances":[1] "b":2}`, "JSON Parse error: Missing a comma or '}' after an object member. at offset: 17"},
		"no comma in list":    {f, `{"instances":[1 2]}`, "JSON Parse error: Missing a comma or ']' after an array element. at offset: 16"},
		"leading zero":        {f, `{"instances":[01]}`, "JSON Parse error: Missing a comma or ']' after an array element. at offset: 15"},
		"hex":                 {str, `{"instances":["\u12G4"]}`, `JSON Parse error: Incorrect hex digit after \u escape in string. at offset: 15`},
		"surrogate":           {str, `{"instances":["\uD800x"]}`, "JSON Parse error: The surrogate pair in string is invalid. at offset: 15"},
		"high after high":     {str, `{"instances":["\uD800\uD800"]}`, "JSON Parse error: The surrogate pair in string is invalid. at offset: 15"},
		"escape":              {str, `{"instances":["\x"]}`, "JSON Parse error: Invalid escape character in string. at offset: 15"},
		"control":             {str, "{\"instances\":[\"a\nb\"]}", "JSON Parse error: Invalid escape character in string. at offset: 16"},
		"quote":               {str, `{"instances":["ab`, "JSON Parse error: Missing a closing quotation mark in string. at offset: 17"},
		"NUL":                 {str, "{\"instances\":[\"a\x00b\"]}", "JSON Parse error: Missing a closing quotation mark in string. at offset: 16"},
		"too big":             {f, `{"instances":[1e309]}`, "JSON Parse error: Number too big to be stored in double. at offset: 14"},
		"zero too big":        {f, `{"instances":[0e309]}`, "JSON Parse error: Number too big to be stored in double. at offset: 14"},
		"too many digits":     {f, `{"instances":[` + strings.Repeat("9", 310) + `]}`, "JSON Parse error: Number too big to be stored in double. at offset: 14"},
		"digits and exponent": {f, `{"instances":[` + strings.Repeat("9", 400) + `e-1]}`, "JSON Parse error: Number too big to be stored in double. at offset: 14"},
		"fraction":            {f, `{"instances":[1.]}`, "JSON Parse error: Miss fraction part in number. at offset: 16"},
		"exponent":            {f, `{"instances":[1e+]}`, "JSON Parse error: Miss exponent in number. at offset: 17"},
		"minus":               {f, `{"instances":[-]}`, "JSON Parse error: Invalid value. at offset: 15"},
		"plus":                {f, `{"instances":[+1]}`, "JSON Parse error: Invalid value. at offset: 14"},
		"literal":             {f, `{"instances":[nul]}`, "JSON Parse error: Invalid value. at offset: 17"},
		"token":               {f, `{"instances":[Nax]}`, "JSON Parse error: Invalid value. at offset: 16"},
		"token at its end":    {f, `{"instances":[Infini]}`, "JSON Parse error: Invalid value. at offset: 20"},
		"syntax comes first":  {f, `{"signature_name":5,"instances":["a"],}`, "JSON Parse error: Missing a name for object member. at offset: 38"},
		"too deep":            {f, `{"x":` + strings.Repeat("[", 600), "JSON Parse error: More than 512 lists or objects within each other. at offset: 516"},

		// The document.
		"not an object":         {f, `[1, [2 ], "a" ]`, `JSON Value: [1, [2], "a"] Is not object`},
		"number":                {f, `1.50`, `JSON Value: 1.5 Is not object`},
		"signature no string":   {f, `{"signature_name":5}`, "JSON Value: {\n    \"signature_name\": 5\n} not formatted correctly. 'signature_name' key must be a string value."},
		"signature unknown":     {f, `{"signature_name":"s","instances":[1]}`, `Serving signature name: "s" not found in signature def`},
		"no default":            {version(nil), `{"instances":[1]}`, `Serving signature name: "serving_default" not found in signature def`},
		"no inputs":             {none, `{"instances":[1]}`, `Failed to get input map for signature: DEFAULT`},
		"no inputs, named":      {version(map[string][]inference.TensorInfo{"s": nil}), `{"signature_name":"s","inputs":{}}`, `Failed to get input map for signature: s`},
		"both keys":             {f, `{"instances":[1],"inputs":[1]}`, "JSON Value: {\n    \"instances\": [1],\n    \"inputs\": [1]\n} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "},
		"both keys, other way":  {f, `{"inputs":[1],"instances":[1]}`, "JSON Value: {\n    \"inputs\": [1],\n    \"instances\": [1]\n} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "},
		"neither key":           {f, `{"x":1}`, "Missing 'inputs' or 'instances' key"},
		"empty object":          {f, `{}`, "Missing 'inputs' or 'instances' key"},
		"only a signature":      {f, `{"signature_name":"serving_default"}`, "Missing 'inputs' or 'instances' key"},
		"instances no list":     {f, `{"instances":1}`, "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array"},
		"instances empty":       {f, `{"instances":[ ]}`, "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"},
		"plain for two":         {two, `{"instances":[1]}`, "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"},
		"b64 for two":           {two, `{"instances":[{"b64":"aGVsbG8="}]}`, "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"},
		"column plain for two":  {two, `{"inputs":[1]}`, "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"},
		"column b64 for two":    {two, `{"inputs":{"b64":"aGVsbG8="}}`, "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"},
		"list among objects":    {two, `{"instances":[{"a":1,"b":"x"},[1]]}`, "Expecting object but got list at item 1 of input list"},
		"object among lists":    {str, `{"instances":["a",{"x":"b"}]}`, "Expecting value/list but got object at item 1 of input list"},
		"key missing":           {two, `{"instances":[{"a":1}]}`, "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"a\": 1\n} keys must be equal to: a,b"},
		"no keys":               {two, `{"instances":[{}]}`, "Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal to: a,b"},
		"key unknown":           {two, `{"instances":[{"a":1,"b":"x","q":1}]}`, "Failed to process element: 0 key: q of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: q"},
		"key twice":             {two, `{"instances":[{"a":1,"a":1,"b":"x"}]}`, "Failed to process element: 0 key: a of 'instances' list. Error: INVALID_ARGUMENT: JSON object: has named input more than once: a"},
		"value in row object":   {two, `{"instances":[{"a":1,"b":"x"},{"a":"y","b":"x"}]}`, `Failed to process element: 1 key: a of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: "y" Type: String is not of expected type: int32`},
		"column missing":        {two, `{"inputs":{"b":"x"}}`, "Missing named input: a in 'inputs' object."},
		"column missing, empty": {f, `{"inputs":{}}`, "Missing named input: x in 'inputs' object."},

		// Shapes.
		"ragged rows":         {n, `{"instances":[[1,2],[3,4],[5,6,7]]}`, "Failed to process element: 2 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 3"},
		"shapes of rows":      {n, `{"instances":[[1,2],[3,4],[[5,6]]]}`, "Failed to process element: 2 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [2] but got: [1,2]"},
		"scalar and list":     {n, `{"instances":[1,[1]]}`, "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [] but got: [1]"},
		"ragged column":       {n, `{"inputs":[[1,2],[3,4,5]]}`, "Encountered list at unexpected size: 3 at level: 1 expected size: 2"},
		"ragged before wrong": {n, `{"inputs":[[1,2],["a",4,5]]}`, "Encountered list at unexpected size: 3 at level: 1 expected size: 2"},
		"wrong before ragged": {n, `{"inputs":[[1,2],["a",4],[1]]}`, `JSON Value: "a" Type: String is not of expected type: int32`},
		"outer before inner":  {n, `{"inputs":[[[1],[2]],[[1,1]]]}`, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"},
		"leaf too high":       {n, `{"inputs":[[1],2]}`, "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"},
		"list too deep":       {n, `{"inputs":[1,[2]]}`, "Encountered list at unexpected level: 1 expected < 1"},
		"nothing then some":   {n, `{"inputs":[[],[1]]}`, "Encountered list at unexpected size: 1 at level: 1 expected size: 0"},
		"rank":                {n, `{"inputs":` + strings.Repeat("[", 255) + "1" + strings.Repeat("]", 255) + `}`, "255 lists within each other make a tensor of as many dimensions; at most 254 are allowed"},
		"rank of rows":        {n, `{"instances":` + strings.Repeat("[", 255) + "1" + strings.Repeat("]", 255) + `}`, "255 lists within each other make a tensor of as many dimensions; at most 254 are allowed"},
		"rank of row objects": {n, `{"instances":[{"x":` + strings.Repeat("[", 254) + "1" + strings.Repeat("]", 254) + `}]}`, "255 lists within each other make a tensor of as many dimensions; at most 254 are allowed"},

		// Types.
		"string for float":  {f, `{"inputs":"a"}`, `JSON Value: "a" Type: String is not of expected type: float`},
		"string in row":     {f, `{"instances":["a"]}`, element0 + `JSON Value: "a" Type: String is not of expected type: float`},
		"null":              {f, `{"instances":[null]}`, element0 + `JSON Value: null Type: Null is not of expected type: float`},
		"true":              {f, `{"instances":[true]}`, element0 + `JSON Value: true Type: True is not of expected type: float`},
		"object":            {f, `{"instances":[[{"b64":"aGVsbG8="}]]}`, element0 + "JSON Value: {\n    \"b64\": \"aGVsbG8=\"\n} Type: Object is not of expected type: float"},
		"whole is no int":   {n, `{"instances":[1.0]}`, element0 + `JSON Value: 1.0 Type: Number is not of expected type: int32`},
		"exponent is none":  {n, `{"instances":[1e2]}`, element0 + `JSON Value: 100.0 Type: Number is not of expected type: int32`},
		"int32 range":       {n, `{"instances":[2147483648]}`, element0 + `JSON Value: 2147483648 Type: Number is not of expected type: int32`},
		"NaN for int":       {n, `{"instances":[NaN]}`, element0 + `JSON Value: NaN Type: Number is not of expected type: int32`},
		"int8 range":        {one(in("x", tensor.Int8)), `{"instances":[2147483648]}`, element0 + `JSON Value: 2147483648 Type: Number is not of expected type: int8`},
		"int64 range":       {one(in("x", tensor.Int64)), `{"instances":[9223372036854775808]}`, element0 + `JSON Value: 9223372036854775808 Type: Number is not of expected type: int64`},
		"uint32 range":      {one(in("x", tensor.Uint32)), `{"instances":[-1]}`, element0 + `JSON Value: -1 Type: Number is not of expected type: uint32`},
		"uint64 range":      {one(in("x", tensor.Uint64)), `{"instances":[18446744073709551616]}`, element0 + `JSON Value: 18446744073709552000.0 Type: Number is not of expected type: uint64`},
		"number for bool":   {one(in("x", tensor.Bool)), `{"instances":[1]}`, element0 + `JSON Value: 1 Type: Number is not of expected type: bool`},
		"number for string": {str, `{"instances":[1e30]}`, element0 + `JSON Value: 1e30 Type: Number is not of expected type: string`},
		"object for string": {str, `{"instances":[["a",{"b64":1}]]}`, "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: {\n    \"b64\": 1\n} not formatted correctly for base64 data"},
		"b64":               {str, `{"inputs":{"b64":"a"}}`, "Unable to base64 decode"},
		"b64 alphabet":      {str, `{"inputs":{"b64":"a-_a"}}`, "Unable to base64 decode"},
		"b64 padding":       {str, `{"inputs":{"b64":"aGVsbG8=="}}`, "Unable to base64 decode"},
		"b64 after padding": {str, `{"inputs":{"b64":"aGVsbG8=a"}}`, "Unable to base64 decode"},
		"half":              {one(in("x", tensor.Half)), `{"inputs":1.5}`, "Conversion of JSON Value: 1.5 to type: half"},
		"uint16":            {one(in("x", tensor.Uint16)), `{"inputs":[1]}`, "Conversion of JSON Value: 1 to type: uint16"},
		"bfloat16 in rows":  {one(in("x", tensor.BFloat16)), `{"instances":[1]}`, "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: Conversion of JSON Value: 1 to type: bfloat16"},
		"complex64":         {one(in("x", tensor.Complex64)), `{"inputs":"a\u0000\n"}`, `Conversion of JSON Value: "a\u0000\n" to type: complex64`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(c.body, c.v, false)
			if err == nil {
				t.Fatal("accepted")
			}
			if err.Msg != c.want {
				t.Errorf("got  %s\nwant %s", err.Msg, c.want)
			}
			want := inference.InvalidArgument
			if strings.HasPrefix(c.want, "Conversion") {
				want = inference.Unimplemented
			}
			if err.Code != want {
				t.Errorf("code %v, want %v", err.Code, want)
			}
		})
	}
}

func TestDecodeStrict(t *testing.T) {
	v := one(in("x", tensor.Float))
	for body, want := range map[string]string{
		`{"instances":[NaN]}`:           "JSON Parse error: Invalid value. at offset: 14",
		`{"instances":[-Infinity]}`:     "JSON Parse error: Invalid value. at offset: 15",
		`{"instances":[1],"a":[NaN]}`:   "JSON Parse error: Invalid value. at offset: 22",
		`{"instances":[1]} x`:           "JSON Parse error: The document root must not be followed by other values. at offset: 18",
		`{"instances":[1]}  `:           "",
		"{\"instances\":[1, 2]} \n\t\r": "",
	} {
		_, err := read(body, v, true)
		if got := ""; err != nil {
			if got = err.Msg; got != want {
				t.Errorf("%s: %s, want %s", body, got, want)
			}
		} else if want != "" {
			t.Errorf("%s: accepted, want %s", body, want)
		}
	}
}

func TestDebugTextIsCutOff(t *testing.T) {
	list := "[" + strings.Repeat("1234567, ", 1000) + "1]"
	got := debugText(pad(list), 0)
	// Tokens begin within the first 256 bytes, so the last of them may end after.
	if want := list[:260]; got != want {
		t.Errorf("%d bytes %q\nwant %q", len(got), got, want)
	}
	if got := debugText(pad(`"`+strings.Repeat("x", 1<<20)+`"`), 0); len(got) != 4*debugBytes+2 {
		t.Errorf("a long string is printed with %d bytes", len(got))
	}
	nested := `{"a": {"b": [1, {"c": [ ]}], "d": {}}}`
	want := "{\n    \"a\": {\n        \"b\": [1, {\n                \"c\": []\n            }],\n        \"d\": {}\n    }\n}"
	if got := debugText(pad(nested), 0); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestStringsAreBounded(t *testing.T) {
	v := one(in("x", tensor.String))
	body := `{"instances":[` + strings.Repeat(`"",`, 50_000) + `""]}`
	if _, err := read(body, v, false); err == nil || err.Reason != inference.ReasonTooLarge {
		t.Errorf("50,001 empty strings take more than a MiB and gave %v", err)
	}
	body = `{"inputs":{"b64":"` + base64.StdEncoding.EncodeToString(make([]byte, 1<<20)) + `"}}`
	if _, err := read(body, v, false); err == nil || err.Reason != inference.ReasonTooLarge {
		t.Errorf("a MiB in base64 gave %v", err)
	}
}

// A number is read as strconv reads it, whichever way it went through ours.
func TestNumbersAreCorrectlyRounded(t *testing.T) {
	literals := []string{"16777217", "16777217.0", "16777216.999999999", "0.1", "1e22", "1e23", "9007199254740993", "179769313486231580793e289",
		"4.9406564584124654e-324", "2.4703282292062327e-324", "1.1754943e-38", "7.0064923216240854e-46", "340282346638528859811704183484516925440",
		"340282356779733661637539395458142568447", "340282356779733661637539395458142568448", "0.000000000000000000000000000000000000012345678901234567890123",
		"8.589973000000000e9", "33554435.00000001", "33554435", "33554433", "1.00000017881393432617187499", "1.00000017881393432617187501"}
	rnd := newRand()
	for range 40_000 {
		f := math.Float32frombits(rnd.Uint32())
		if !finite(float64(f)) {
			continue
		}
		// Texts near the middle between two float32, where double rounding goes wrong.
		next := math.Nextafter32(f, float32(math.Inf(1)))
		mid := (float64(f) + float64(next)) / 2
		literals = append(literals, strconv.FormatFloat(mid, 'g', 9+rnd.IntN(10), 64), strconv.FormatFloat(float64(f), 'g', -1, 32),
			strconv.FormatFloat(math.Float64frombits(rnd.Uint64()), 'e', rnd.IntN(20), 64), strconv.FormatFloat(rnd.Float64(), 'f', rnd.IntN(22), 64))
	}
	for _, s := range literals {
		if strings.ContainsAny(s, "NI") || strings.Contains(s, "e+309") {
			continue
		}
		b := pad(s)
		want64, err := strconv.ParseFloat(s, 64)
		got64, end64 := float64At(b, 0, false)
		if err != nil {
			if end64 >= 0 {
				t.Fatalf("%s: too big and read as %v", s, got64)
			}
			continue
		}
		if got64 != want64 || end64 != len(s) {
			t.Fatalf("%s: float64 %v, want %v", s, got64, want64)
		}
		want32, _ := strconv.ParseFloat(s, 32)
		if got, end := float32At(b, 0, false); got != float32(want32) || end != len(s) {
			t.Fatalf("%s: float32 %v, want %v", s, got, float32(want32))
		}
	}
}

func TestDecodeAllocatesNothingTwice(t *testing.T) {
	v := one(in("x", tensor.Float))
	body := pad(`{"signature_name":"serving_default","instances":[[1,2.5,1e-3,0.12345678901234567],[4,5,6,7]]}`)
	d := &decoder{maxBytes: 1 << 20}
	if n := testing.AllocsPerRun(100, func() {
		if !d.decode(body, v) {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The memory for a tensor follows what is there, not what the rest of the text could hold.
func TestDecodeMemoryIsBounded(t *testing.T) {
	const n = 50_000
	v := one(in("a", tensor.Float), in("b", tensor.Float), in("c", tensor.Double))
	d := &decoder{maxBytes: 1 << 30}
	if !d.decode(pad(`{"inputs":{"a":`+numbers(n, 4)+`,"b":`+numbers(n, 9)+`,"c":[`+strings.Repeat("1,", n-1)+`1]}}`), v) {
		t.Fatal("refused")
	}
	for i, want := range []int{4 * n, 4 * n, 8 * n} {
		if f := &d.fills[i]; len(f.data) != want || cap(f.data) > 4*want+64 {
			t.Errorf("input %d: %d bytes in %d, want %d", i, len(f.data), cap(f.data), want)
		}
	}
	small := &decoder{maxBytes: 1000}
	if small.decode(pad(`{"inputs":`+numbers(300, 1)+`}`), one(in("x", tensor.Float))) {
		t.Error("1,200 bytes fit into 1,000")
	}
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
