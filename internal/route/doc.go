// Package route finds the sinks that want a message type.
//
// Types, patterns and the rules by which they match are in pattern.go, what one
// registration asks for is an [Interest], and a [Table] maps types to sinks.
//
// What a Table guarantees:
//
//   - A Lookup that begins after Add or Remove returned sees the change.
//   - A Lookup of a type that is in the cache takes no lock and allocates
//     nothing.
//   - A change of a literal pattern drops the cached result of that type and no
//     others; a change of a wildcard pattern makes all of them stale.
//   - Memory is bounded by the largest number of registrations held at one time
//     plus a cache of fixed size, however many types are looked up.
//   - The cost of a Lookup does not grow with literal registrations for other
//     types, nor with patterns that part from the type at an earlier token. A
//     miss costs one map look-up, a walk of the wildcard patterns by token and
//     the copying of the result.
//   - Add and Remove of one literal pattern take constant time.
//   - A result lists each sink once, in the order in which the oldest
//     registrations that match were added.
//
// What it does not promise: a Lookup that runs at the same time as a change may
// return the result from before or after it; a result that was returned stays
// as it is; denied types are found by asking each registration whose Allow
// matches, so many registrations that differ in Deny make misses slower.
package route
