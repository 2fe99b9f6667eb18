//! One step comes after the other: publish, then link; invalidate, then make; a debt is settled once.

pub mod debt_settled_once {
    //! A debt is settled by value: nobody settles it twice, adds to it afterwards, or settles it as another kind of
    //! debt.
    use breakwater::bbm::{After, Broken, Changed, Filled, Live, Place, Protocol};
    use breakwater::machine::Machine;

    pub fn complete<M: Machine>(p: &mut Protocol<M>, one: Filled<Live>, two: Filled<Live>) {
        p.complete(one);
        p.complete(two); //~ E0382: p.complete(one);
    }

    pub fn invalidate<M: Machine>(p: &mut Protocol<M>, slot: Place<'_, M, Live>, mut one: Broken, mut two: Broken) {
        p.break_run(slot, 1, After::Nothing, &mut one);
        let _first = p.invalidate(one);
        p.break_run(slot, 1, After::Nothing, &mut two); //~ E0382: p.break_run(slot, 1, After::Nothing, &mut one);
        let _second = p.invalidate(two);
    }

    pub fn changed<M: Machine>(p: &mut Protocol<M>, one: Changed, two: Changed) {
        p.invalidate_changed(one);
        p.invalidate_changed(two); //~ E0382: p.invalidate_changed(one);
    }

    pub fn kinds<M: Machine>(p: &mut Protocol<M>, changed: Changed, broken: Broken) {
        p.invalidate_changed(changed);
        let _proof = p.invalidate(broken); //~ E0308: let _proof = p.invalidate(Changed::none());
    }

    pub fn together<M: Machine>(p: &mut Protocol<M>, broken: Broken, changed: Changed, other: Changed) {
        let _proof = p.invalidate_all(broken, changed);
        p.invalidate_changed(other); //~ E0382: p.invalidate_changed(changed);
    }

    pub fn copied(broken: Broken, _again: impl Fn(Broken)) -> Broken {
        broken //~ E0599: broken.clone()
    }
}

pub mod links_after_publication {
    //! Tables that were laid ready are linked after the DSB that makes them visible, and all of them.
    use breakwater::bbm::{Filled, FreshTable, Laid, Live, Place, Protocol, Published, UnusedSlots};
    use breakwater::machine::Machine;

    pub fn link<M: Machine>(p: &mut Protocol<M>, slot: Place<'_, M, Live>, laid: Laid, filled: &mut Filled<Live>) {
        let mut published = p.publish(laid); //~ E0308: let mut published = laid;
        p.link_laid(slot, &mut published, filled);
        let _linked = published;
    }

    pub fn lay<M: Machine>(
        p: &mut Protocol<M>,
        (one, two): (UnusedSlots<'_, M, Live>, UnusedSlots<'_, M, Live>),
        (first, second): (FreshTable<M>, FreshTable<M>),
        (mut laid, mut later): (Laid, Laid),
    ) -> Published {
        p.lay(one, first, false, &mut laid);
        let published = p.publish(laid);
        p.lay(two, second, false, &mut later); //~ E0382: p.lay(two, second, false, &mut laid);
        p.publish(later).done();
        published
    }

    pub fn done(one: Published, two: Published) {
        one.done();
        two.done(); //~ E0382: one.done();
    }

    pub fn unpublished(laid: Laid, published: Published) -> Laid {
        published.done(); //~ E0599: laid.done();
        laid
    }
}

pub mod make_after_invalidation {
    //! What is broken is made, given back or freed only on the proof of its invalidation: no method makes or reclaims
    //! without one.
    use breakwater::bbm::{Broken, Detached, Filled, FreeTables, Invalidated, Live, Place, Protocol, Settling};
    use breakwater::machine::Machine;

    pub fn settle<M: Machine>(
        p: &mut Protocol<M>,
        first: Place<'_, M, Live>,
        broken: Broken,
        (filled, detached, free): (&mut Filled<Live>, &mut Detached, &mut FreeTables<M>),
    ) {
        let proof = p.invalidate(broken); //~ E0308: let proof = broken;
        let mut settling = Settling { proof: &proof, filled, detached, free, merges: false };
        p.settle_run(first, 1, &mut settling);
    }

    pub fn settle_without<'a, M: Machine>(
        proof: &'a Invalidated,
        (filled, detached, free): (&'a mut Filled<Live>, &'a mut Detached, &'a mut FreeTables<M>),
    ) -> Settling<'a, M> {
        Settling { proof, filled, detached, free, merges: false } //~ E0063: Settling { filled, detached, free, merges: false }
    }
}
