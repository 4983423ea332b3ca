"""The live blog's addresses."""

from django.urls import path

from project.blog import views

app_name = "blog"

urlpatterns = [
    path("", views.home, name="home"),
    path("section/<slug:slug>/", views.section, name="section"),
    path("entry/<int:pk>/", views.entry, name="entry"),
    path("entry/<int:pk>/edit/", views.edit, name="edit"),
    path("entry/<int:pk>/delete/", views.delete, name="delete"),
    path("desk/", views.desk, name="desk"),
    path("write/", views.write, name="write"),
    path("report/", views.report, name="report"),
    path("applaud/", views.applaud, name="applaud"),
    path("notices/", views.notices, name="notices"),
]
