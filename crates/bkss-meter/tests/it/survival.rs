//! Whatever is shown to a meter, it goes on, and shows no link that it must not show.

use bkss_scheme::{
    Handover, LedgerTime, codec,
    timestamp::{RegistrationProof, TimeProof},
};

use crate::{
    consortium::{NETWORK, Provisioned, QUORUM, at, encoded, reading, registration},
    mutation,
};

#[test]
fn a_meter_goes_on_whatever_it_is_shown() {
    let mut provisioned = Provisioned::new(1);
    let consortium = &provisioned.consortium;
    let next = crate::consortium::Consortium::new(2).committee;
    let mut end = consortium.last_of(0, at(1, 0));
    end.next_committee = Some(next.digest());
    let votes = consortium.sign_in(0, NETWORK, end.id(), &QUORUM);
    let handover =
        Handover { header: end, finality: votes.finality(), committee: Some(next), members: None };
    let inputs = [
        // Before the end of the window of link 2.
        consortium.time_proof(at(2, 299_999)),
        consortium.registration_proof(&registration(provisioned.parameters.root_message.clone())),
        encoded(&handover),
    ];
    let mut meter = provisioned.meter();
    meter.sign(at(2, 0), &reading(1), &mut provisioned.rng).unwrap();
    let now = at(2, 300_000);
    mutation::each(1, &inputs, |kind, bytes| match kind {
        0 => {
            if let Ok(proof) = codec::decode::<TimeProof<'_>>("time", bytes) {
                let taken = meter.on_time(now, &proof);
                assert!(taken.is_err() || taken == Ok(at(2, 299_999)), "{taken:?}");
            }
        }
        1 => {
            if let Ok(proof) = codec::decode::<RegistrationProof<'_>>("registration", bytes) {
                let _ = meter.confirm_registration(&proof);
                assert_eq!(meter.locked(), None);
            }
        }
        _ => {
            if let Ok(handover) = codec::decode::<Handover<'_>>("handover", bytes) {
                let _ = meter.on_handover(&handover);
                assert!(meter.era().from_epoch <= 1);
            }
        }
    });
    assert_eq!(meter.release(), None, "its window is open");
    let mut meter = provisioned.restarted(meter);
    provisioned.confirm(&mut meter);
    provisioned.bring_time(&mut meter, LedgerTime(now.0));
    meter.sign(at(3, 0), &reading(1), &mut provisioned.rng).unwrap();
}
