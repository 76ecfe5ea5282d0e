"""The app as a Hugging Face Space: `lmac_sb.app.serve` for everybody."""

from lmac_sb.app import serve

serve(host="0.0.0.0", port=7860, max_mb=20, max_seconds=60)
