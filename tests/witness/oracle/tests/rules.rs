//! Every rule of the oracle as a pair of claims: a sequence that obeys it and one that breaks it, and exactly what is reported.

#[path = "rules/changes.rs"]
mod changes;
#[path = "rules/contiguous.rs"]
mod contiguous;
#[path = "rules/ends.rs"]
mod ends;
#[path = "rules/fills.rs"]
mod fills;
#[path = "rules/granules.rs"]
mod granules;
#[path = "rules/hostile.rs"]
mod hostile;
#[path = "rules/leaves.rs"]
mod leaves;
#[path = "rules/lines.rs"]
mod lines;
#[path = "rules/registers.rs"]
mod registers;
#[path = "rules/roots.rs"]
mod roots;
#[path = "rules/tables.rs"]
mod tables;
#[path = "rules/world.rs"]
mod world;
