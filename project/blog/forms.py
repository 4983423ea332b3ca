"""What readers and editors send."""

from typing import Any

from django import forms

from project.blog.models import Entry, Reading


class EntryForm(forms.ModelForm):
    """Write or change an entry. The status comes with the button: `status=published` or `status=draft`."""

    class Meta:
        model = Entry
        fields = ["title", "text", "section", "pinned", "status"]
        widgets = {
            "title": forms.TextInput(attrs={"autocomplete": "off", "placeholder": "What has just happened?"}),
            "text": forms.Textarea(attrs={"rows": 4}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, label_suffix="", **kwargs)
        self.fields["section"].empty_label = None
        self.fields["pinned"].help_text = ""
        self.fields["pinned"].label = "Keep at the top"


class ApplauseForm(forms.Form):
    """Applaud one entry, which everybody may see."""

    entry = forms.ModelChoiceField(queryset=Entry.objects.published())


class ReadingForm(forms.ModelForm):
    """Say how high the water stands."""

    class Meta:
        model = Reading
        fields = ["cm"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, label_suffix="", **kwargs)
        self.fields["cm"].help_text = ""
