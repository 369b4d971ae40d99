// Package config turns a YAML file, flags, or TensorFlow Serving's own command line into one [Config] that is whole and valid.
//
// Invariants:
//  1. Defaults are filled in before anything is read, so a key that is left out, or given no value, has its default.
//  2. Nothing is ignored in silence: an unknown key or flag is a [Fault]; a flag or field of TensorFlow Serving's that has no meaning
//     here is returned by name as [Ignored].
//  3. [Load], [Parse] and [ParseTFServing] return either a Config that passes [Config.Validate] or every fault that was found, each
//     with its key path and line.
//  4. A Config is immutable once returned, and its slices and maps may be shared between models.
//  5. What is read is bounded: [MaxFileBytes] for a file, [MaxModels] for the list of models.
//
// Precedence, lowest first: the defaults, the file, flags; for a model: the defaults, the file's defaults section, flags that name
// keys of that section, the model's own keys.
//
// It is not for reading models, opening ports or looking at the machine: of the file system it reads the files that it is given, and
// [Config.ControlSocket] alone asks what is writable.
package config
