//! Proofs come from the protocol alone.
use breakwater::addr::{Frame, PhysSpan};
use breakwater::bbm::{Broken, Detached, Invalidated, Released};
use breakwater::frames::FrameSupply;

pub fn released(released: Released, _frame: Frame) -> Released {
    released //~ E0451: Released { frames: [Some(_frame); 8] }
}

pub fn invalidated(proof: Invalidated) -> Invalidated {
    proof //~ E0451: Invalidated { ..proof }
}

pub fn detached(frames: &mut FrameSupply, released: &Released, _old: &Detached) {
    frames.release(released); //~ E0308: frames.release(_old);
}

pub fn unmapped(frames: &mut FrameSupply, span: PhysSpan, proof: &Invalidated, _broken: &Broken) {
    let _ = frames.add_unmapped(span, proof); //~ E0308: let _ = frames.add_unmapped(span, _broken);
}

pub fn copied(proof: Invalidated) -> (Invalidated, u8) {
    (proof, 0) //~ E0599: (proof.clone(), 0)
}
