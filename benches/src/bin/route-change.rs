//! `route-change [CHANGES]`: how long route changes take, as rows of `docs/numbers.md`. Fails if they take too long.

use std::time::Duration;

use mesh_benches::report::{at_most, millis, quantile, row};
use mesh_benches::world::World;
use mesh_benches::{Error, route_change};
use tokio::runtime::Builder;

const BUDGET: Duration = Duration::from_millis(10);

fn main() -> Result<(), Error> {
    let changes = std::env::args().nth(1).map_or(Ok(300), |text| text.parse())?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let world = World::new()?;
    let mut took = runtime.block_on(route_change::measure(&world, changes))?;
    let (p50, p99) = (quantile(&mut took, 0.5), quantile(&mut took, 0.99));
    let what =
        format!("route change, from the control plane's write to the first response under it, {changes} changes");
    row(&format!("{what}: p50"), &millis(p50), "stated only")?;
    row(&format!("{what}: p99"), &millis(p99), "10 ms at most")?;
    at_most(&what, p99, BUDGET, &millis(p99))
}
