//! The walk of one reading through a scene.

use bkss_meter::signer::Signed;
use bkss_scheme::{LedgerTime, codec};

use super::{Broken, Home, Scene, SoftwareMeter, WINDOW_S, at, reading};

impl Scene {
    /// Brings a meter proof that the newest block is final.
    pub(crate) fn bring_time(&self, meter: &mut SoftwareMeter) -> Result<(), Broken> {
        let block = self.blocks.last().ok_or(Broken::DoesNotHold("a block"))?;
        let proof = block.time_proof().ok_or(Broken::DoesNotHold("a proof of time"))?;
        meter.on_time(block.header().time, &codec::decode("proof", &proof)?)?;
        Ok(())
    }

    /// One reading all the way: signed, requested, released behind the window, opened.
    pub(crate) fn reading(
        &mut self,
        home: &mut Home,
        index: u32,
        value: i32,
    ) -> Result<Signed, Broken> {
        let signed = home.meter.sign(at(index, 0), &reading(value), &mut self.rng)?;
        let request = self.requests(0, index, [(home.row, signed.message().value)]);
        self.block(at(index, 1), &[request])?;
        self.block(at(index, WINDOW_S.into()), &[])?;
        self.open(home, index, &signed)?;
        Ok(signed)
    }

    /// Releases a signed reading and puts its opening on the ledger.
    pub(crate) fn open(
        &mut self,
        home: &mut Home,
        index: u32,
        signed: &Signed,
    ) -> Result<(), Broken> {
        self.bring_time(&mut home.meter)?;
        let released = home.meter.release().ok_or(Broken::DoesNotHold("release"))?;
        let body = signed.message().body.to_vec();
        let opening = self.openings(0, index, &[(home.row, released.link, body)])?;
        let time = LedgerTime(self.state.head().time.0 + 1000);
        let verified = self.block(time, &[opening])?;
        if verified.openings().len() != 1 {
            return Err(Broken::DoesNotHold("opening"));
        }
        home.meter.acknowledged(released.index);
        Ok(())
    }
}
