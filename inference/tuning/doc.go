// Package tuning chooses how TensorFlow is called for one version of a model, by measuring.
//
// A [Plan] says how: in how many threads, on whose, with which executor, as saved or frozen. [Next] decides what to try, [Decide] what a
// comparison has shown; both are functions of values. [Compare] measures two runners that are there, and [Answers] holds their outputs against
// each other. Loading them, the memory for them and what is remembered are others' affairs.
//
// Invariants:
//  1. The plain plan, which is the model as it was saved and as it was configured, is what every other one is held against first. It is left
//     only for a gain that is beyond doubt.
//  2. A plan whose outputs differ from the plain plan's is never used.
//  3. What the configuration sets is never another.
package tuning
