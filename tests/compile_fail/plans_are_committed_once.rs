//! A plan holds the mapper, and through it the tables, the frames and the protocol, until it is committed or dropped; it is committed
//! once, and not forgotten.
#![deny(unused_must_use)]
use breakwater::addr::{Level, VirtAddr, VirtSpan};
use breakwater::bbm::{Live, Protocol, Tables};
use breakwater::descriptor::Attributes;
use breakwater::frames::{FrameSupply, Supply};
use breakwater::machine::Machine;
use breakwater::mapper::{Cost, Error, Mapper, Request};

pub fn fill<M: Machine>(mapper: &mut Mapper<'_, M, Live>, request: Request) -> Result<Cost, Error> {
    let plan = mapper.plan_map(request)?;
    let cost = plan.cost();
    let _done = plan.commit();
    Ok(cost) //~ E0382: Ok(plan.cost())
}

pub fn change<M: Machine>(mapper: &mut Mapper<'_, M, Live>, virt: VirtSpan) -> Result<Cost, Error> {
    let plan = mapper.plan_unmap(virt)?;
    let done = plan.commit();
    Ok(done.cost) //~ E0382: Ok(plan.commit().cost)
}

pub fn two_at_once<M: Machine>(mapper: &mut Mapper<'_, M, Live>, one: VirtSpan, two: VirtSpan) -> Result<(), Error> {
    let first = mapper.plan_unmap(one)?.commit().cost; //~ E0499: let first = mapper.plan_unmap(one)?;
    let second = mapper.plan_split(two, Level::L3)?;
    let _second = second.commit();
    drop(first);
    Ok(())
}

pub fn in_between<M: Machine>(
    (p, frames, tables): (&mut Protocol<M>, &mut FrameSupply<M>, &mut Tables<M, Live>),
    (virt, attributes): (VirtSpan, Attributes),
) -> Result<u64, Error> {
    let mut mapper = Mapper::new(p, frames, tables);
    let plan = mapper.plan_protect(virt, attributes)?;
    let free = plan.cost().frames; //~ E0502: let free = mapper.free_frames();
    let cost = plan.commit().cost; //~ E0505: drop(mapper); let cost = plan.commit().cost;
    Ok(free + cost.frames)
}

pub fn tables_in_between<M: Machine>(
    (p, frames, tables, _other): (&mut Protocol<M>, &mut FrameSupply<M>, &mut Tables<M, Live>, &mut Tables<M, Live>),
    virt: VirtSpan,
) -> Result<bool, Error> {
    let mut mapper = Mapper::new(p, frames, tables);
    let plan = mapper.plan_merge(virt, Level::L1, false)?;
    let root = _other.root(); //~ E0502: let root = tables.root();
    let _done = plan.commit();
    Ok(root.start().raw() == 0)
}

pub fn frames_in_between<M: Machine>(
    (p, frames, tables, _other): (&mut Protocol<M>, &mut FrameSupply<M>, &mut Tables<M, Live>, &mut FrameSupply<M>),
    virt: VirtSpan,
) -> Result<bool, Error> {
    let mut mapper = Mapper::new(p, frames, tables);
    let plan = mapper.plan_populate(virt, Level::L3)?;
    let taken = _other.take(); //~ E0499: let taken = frames.take();
    let _done = plan.commit();
    Ok(taken.is_some())
}

pub fn drained_in_between<M: Machine, F: Supply<M>>(
    (p, frames, tables, _other): (&mut Protocol<M>, &mut F, &mut Tables<M, Live>, &mut F),
    virt: VirtSpan,
) -> Result<u64, Error> {
    let mut mapper = Mapper::new(p, frames, tables);
    let plan = mapper.plan_populate(virt, Level::L3)?;
    let list = _other.tables_mut(); //~ E0499: let list = frames.tables_mut();
    let _done = plan.commit();
    Ok(list.count())
}

pub fn forgotten<M: Machine>(mapper: &mut Mapper<'_, M, Live>, virt: VirtSpan) -> Result<(), Error> {
    mapper.plan_unmap(virt)?.commit(); //~ lint: mapper.plan_unmap(virt)?;
    Ok(())
}

pub fn fill_forgotten<M: Machine>(mapper: &mut Mapper<'_, M, Live>, request: Request) -> Result<(), Error> {
    mapper.plan_map(request)?.commit(); //~ lint: mapper.plan_map(request)?;
    Ok(())
}

pub fn looked_at<M: Machine>(mapper: &mut Mapper<'_, M, Live>, virt: VirtSpan) -> Result<bool, Error> {
    let plan = mapper.plan_unmap(virt)?;
    let dear = plan.cost().tlbis > 1;
    drop(plan); //~ E0502: let _seen = mapper.query(VirtAddr::at(0)); drop(plan);
    Ok(dear && mapper.query(VirtAddr::at(0)).is_some())
}
