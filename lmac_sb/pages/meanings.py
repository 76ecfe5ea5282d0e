"""What each metric says, in one sentence for a person who reads a report."""

__all__ = ["MEANINGS"]

# Of every metric in `lmac_sb.metrics.registry.METRICS`.
MEANINGS = {
    "AI": "Average increase: 100 where the classifier is surer of the kept "
    "part alone than of the whole sound, else 0.",
    "AD": "Average drop: the share of the probability, in percent, that the "
    "kept part alone loses.",
    "AG": "Average gain: the share of the missing probability, in percent, "
    "that the kept part alone wins.",
    "FF": "Faithfulness: by how much the probability falls when the kept part "
    "is removed.",
    "FF-logit": "Faithfulness in logits: by how much the logit of the class "
    "falls when the kept part is removed.",
    "Fid-In": "Input fidelity: 1 where the kept part alone gets the same "
    "decision as the whole sound, else 0.",
    "SPS": "Sparseness: near 1 where the mask keeps few cells of the picture, "
    "0 where it is the same everywhere.",
    "COMP": "Complexity: the entropy of the mask, which is small where it "
    "keeps few cells of the picture.",
    "area": "Area: the mean of the mask, from 0, where nothing is kept, to 1, "
    "where everything is kept and nothing explained.",
    "AD-2softmax": "Average drop as the paper's public code computes it: with "
    "the softmax applied twice.",
    "event_mass": "Event mass: the share of the mask that lies on the event "
    "that is known to decide.",
    "event_topk": "Event top k: the share of the mask's highest cells that "
    "lie on the event that is known to decide.",
    "event_auc": "Event AUC: how well the mask tells the known event from the "
    "rest of the sound; 1 is perfect, 0.5 is chance.",
    "time_mass": "Time mass: the share of the mask that lies in the time in "
    "which the known event sounds, at any frequency.",
    "time_auc": "Time AUC: how well the mask tells the time in which the known "
    "event sounds from the rest; 1 is perfect, 0.5 is chance.",
    "kept_event_mass": "Kept event mass: the share of what is heard, the mask "
    "times the level of each cell, that lies on the event that is known to "
    "decide.",
    "kept_event_topk": "Kept event top k: the share of the loudest cells that "
    "are heard that lie on the event that is known to decide.",
    "kept_event_auc": "Kept event AUC: how well the level of what is heard "
    "tells the known event from the rest; 1 is perfect, 0.5 is chance.",
    "kept_time_mass": "Kept time mass: the share of what is heard that lies in "
    "the time in which the known event sounds, at any frequency.",
    "kept_time_auc": "Kept time AUC: how well the level of what is heard tells "
    "the time in which the known event sounds from the rest; 1 is perfect, "
    "0.5 is chance.",
    "time_iou": "Time IoU: the time in which both what is heard and the known "
    "event are active, as a share of that in which either is.",
    "time_f1": "Time F1: precision and recall, as one number, of the time in "
    "which something is heard as that in which the known event is active.",
    "pointing": "Pointing game: 1 where the loudest cell that is heard lies on "
    "the event that is known to decide, else 0.",
    "SI-SDR": "Signal-to-distortion ratio in dB: how much of the kept sound is "
    "the known event, at whatever gain.",
    "insertion AUC": "Insertion AUC: the mean probability while the mask's "
    "highest cells are added step by step.",
    "deletion AUC": "Deletion AUC: the mean probability while the mask's "
    "highest cells are removed step by step.",
    "other_mass": "Other mass: the share of the mask that lies on events of "
    "other classes.",
    "other_auc": "Other AUC: how well the mask tells events of other classes "
    "from the rest of the sound; 0.5 is chance.",
    "kept_other_mass": "Kept other mass: the share of what is heard that lies "
    "on events of other classes.",
    "kept_other_auc": "Kept other AUC: how well the level of what is heard "
    "tells events of other classes from the rest; 0.5 is chance.",
}
